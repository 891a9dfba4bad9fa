/* Floor 3: the rollout engine: completions for prompts. Prompts are prefilled once a group, their full KV pages shared by
   its completions; slots are refilled as completions end; nothing that a completion contains depends on slots, order or threads. */
#ifndef GRPO_ROLLOUT_H
#define GRPO_ROLLOUT_H

#include "rl/inference.h"

enum finish { FINISH_LENGTH, FINISH_STOP_ID, FINISH_STOP_STRING };

struct rollout_request {
    struct ragged prompts;
    int num_generations, max_new_tokens, min_new_tokens, slots;
    struct sampler sampler;               /* stop_ids, forbidden: filled by the engine */
    uint64_t seed;
    uint32_t step;
    const int32_t *stop_ids, *forbidden_ids;
    int n_stop, n_forbidden;
    /* stop strings: string i is stop_bytes[stop_offset[i] .. stop_offset[i+1]); token id adds token_bytes[token_offset[id] ..) */
    int n_stop_strings;
    const int64_t *stop_offset, *token_offset;
    const char *stop_bytes, *token_bytes;
    uint32_t first_prompt;                /* Philox counter of prompt 0 */
    int lookahead;                        /* decode steps between two looks of the host, no bit depends on it; 0: the backend's */
    int keep_rows;                        /* keep the activations of so many rows for the update (model/kept.h); 0: none */
    int keep_inputs;                      /* of each layer its input alone, for a trainer with recompute */
    int (*progress)(void *arg, int64_t tokens, int finished);    /* a few times a second; non-zero stops with E_INTERRUPT */
    void *progress_arg;
};

/* Caller's arrays: one row of max_new_tokens an output sequence, prompt-major. */
struct rollout_result {
    int32_t *length, *finish;             /* (n) */
    int32_t *tokens;                      /* (n, max_new_tokens) */
    float *logp, *policy_logp, *entropy;  /* (n, max_new_tokens), see struct sampled */
    int64_t *kept;                        /* (n) id of what was kept of each, -1: nothing */
    double prefill_seconds, decode_seconds;
};

int rollout(struct inference *r, struct rollout_result *out, const struct rollout_request *request);
/* Workspace of a rollout of so many prompts: KV cache and activations. */
size_t rollout_bytes(const struct ops *ops, const struct config *c, int slots, int prompts, int prompt_length, int max_new_tokens);

#endif
