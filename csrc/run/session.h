/* Floor 3: what runs a model without gradients: one set of activations, one packed batch, the KV pool. Laid out in the
   model's workspace at the start of each call. */
#ifndef GRPO_INFERENCE_H
#define GRPO_INFERENCE_H

#include "rl/batch.h"

struct inference {
    struct model *m;
    struct activations acts;      /* KEEP_NONE */
    struct batch batch;
    struct kv kv;
    char *rest;                   /* `more` bytes of the workspace, the caller's; they hold anything */
};

/* Ready to run so many rows, head rows and segments, with kv_pages empty pages and `more` bytes. */
int inference_reserve(struct inference *r, int rows, int head_rows, int segments, int kv_pages, size_t more);
void inference_free(struct inference *r);

/* Scratch of the ops: rows packed rows, head_rows head rows, `slots` decode rows, positions up to max_position; shared_pages
   of attention_decode. */
int reserve_scratch(struct model *m, int rows, int head_rows, int slots, int segments, int max_position, int shared_pages);

#endif
