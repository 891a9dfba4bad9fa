/* Floor 2: activations of a rollout, kept for the update that follows (C9). Decoding and prefill are the training forward, so
   while the weights stand still the rows they leave here are what a forward over the same tokens would compute, bit for bit,
   and only the backward has to run. Rows are handed out as tokens come; a group that might not fit is not kept at all. */
#ifndef GRPO_KEPT_H
#define GRPO_KEPT_H

#include "model/text.h"

struct kept {
    struct activations store;      /* KEEP_ROWS or KEEP_ROW_INPUTS; the first `spare` rows are nobody's: what need not be kept is put there */
    void *arena;
    size_t bytes;
    int spare, used;
    int64_t promised;              /* rows that live completions may still ask for */
    uint64_t version;              /* of the weights that the rows were computed with */
    int64_t first_id;              /* completion i of the rollout has id first_id + i; ids are never used again */
    int n_prompts, num_generations, width;
    int32_t *prompt_row, *prompt_length;       /* (n_prompts) first row, -1: the group is not kept; rows */
    int32_t *row, *length;         /* (n_prompts num_generations, width) row of each token that was run; (..) their number */
};

/* keep: KEEP_ROWS, or KEEP_ROW_INPUTS where the backward computes a layer again from its input (KEEP_INPUTS) */
size_t kept_row_bytes(const struct ops *ops, const struct config *c, enum keep keep);

/* Forgets what was kept and makes room for `rows` rows of n_prompts x num_generations completions of up to width + 1 tokens. */
int kept_begin(struct model *m, int n_prompts, int num_generations, int width, enum keep keep, int rows, int spare);
void kept_free(struct model *m);
/* First row of a prompt that is about to be run, or -1. */
int32_t kept_prompt(struct kept *k, int prompt, int length);
/* Row of a completion's next token, or -1; and its end, after the first `rows` of them: what was run further is forgotten. */
int32_t kept_token(struct kept *k, int completion);
void kept_end(struct kept *k, int completion, int rows);

/* Completion of that id, if its rows still are those of m's weights and of a prompt and completion with so many rows; or -1. */
int kept_find(const struct model *m, int64_t id, int prompt_length, int rows);

#endif
