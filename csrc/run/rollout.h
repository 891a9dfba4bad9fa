/* Floor 4: a rollout: completions for prompts, as one loop over live sequences (sequences.h): open, start, extend,
   close. Slots are refilled as completions end; nothing that a completion contains depends on slots, order or
   threads. */
#ifndef GRPO_ROLLOUT_H
#define GRPO_ROLLOUT_H

#include "run/sequences.h"

enum { COMPLETIONS_MAX = 1 << 24 };       /* of a rollout */
enum finish { FINISH_LENGTH, FINISH_STOP_ID, FINISH_STOP_STRING };

struct rollout_request {
    struct ragged prompts;
    const struct pictures *pictures;      /* of the prompts, with features; NULL: they have none */
    int num_generations, max_new_tokens, min_new_tokens, slots;
    struct sampler sampler;               /* stop_ids, forbidden: filled by the engine */
    uint64_t seed;
    uint32_t step;
    const int32_t *stop_ids, *forbidden_ids;
    int n_stop, n_forbidden;
    /* stop strings: string i is stop_bytes[stop_offset[i] .. stop_offset[i+1]); token id adds
       token_bytes[token_offset[id] ..) */
    int n_stop_strings;
    const int64_t *stop_offset, *token_offset;
    const char *stop_bytes, *token_bytes;
    uint32_t first_prompt;                /* Philox counter of prompt 0 */
    int lookahead;                        /* as of sequences; 0: the backend's */
    struct store *store;                  /* where activations are stored for the update; NULL: nowhere */
    int store_rows;                       /* so many rows of them */
    /* called a few times a second; non-zero stops with E_INTERRUPT */
    int (*progress)(void *arg, int64_t tokens, int finished);
    void *progress_arg;
};

/* Caller's arrays: one row of max_new_tokens an output sequence, prompt-major. */
struct rollout_result {
    int32_t *length, *finish;             /* (n) */
    int32_t *tokens;                      /* (n, max_new_tokens) */
    float *logp, *policy_logp, *entropy;  /* (n, max_new_tokens), see struct sampled */
    int64_t *stored;                      /* (n) id of each in the store, -1: not stored */
    double prefill_seconds, decode_seconds;
};

int rollout(struct session *session, struct rollout_result *out, const struct rollout_request *request);
/* Workspace of a rollout of so many prompts: cache, activations and tables */
struct rollout_size {
    int slots, prompts, prompt_length, max_new_tokens;
    int image_tokens;                     /* of all prompts together */
    int forbids;                          /* some ids are never drawn */
};
/* E_CONFIG for a cache of more than ROWS_MAX positions */
int rollout_check_size(const struct rollout_size *size);
size_t rollout_bytes(const struct ops *ops, const struct spec *spec, const struct rollout_size *size);
/* Features that prompts prefilled together have at most */
int rollout_vectors(const struct ops *ops, const struct spec *spec, const struct rollout_size *size);

#endif
