/* Floor 3: the memory plan (C6): what a run will hold, before anything of it is allocated. The sizes come from the same
   functions that allocate. */
#ifndef GRPO_PLAN_H
#define GRPO_PLAN_H

#include "rl/train.h"

struct plan_request {
    struct config config;
    int step_prompts, num_generations, prompt_length, max_new_tokens;      /* of the largest optimiser step */
    int token_budget, recompute;
    enum moment_dtype moments;
    enum master_dtype masters;
    int rollout_prompts, slots, keep_rows;                                 /* slots, keep_rows 0: none */
    int train, reference, mixed;                                           /* a reference is there; and is mixed with the policy */
};
struct plan_line { const char *arena; size_t bytes; };
enum { PLAN_LINES = 10 };

/* Fills lines (PLAN_LINES) and returns their number. */
int plan_memory(struct plan_line *lines, int *n, const char *device, const struct plan_request *r);

#endif
