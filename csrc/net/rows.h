/* Floor 3: what the rows of a batch are: a row is the place of one token. Prefill, decode, scoring and training
   describe their rows in these words, and text.h runs them. Everything behind pointers is device memory. */
#ifndef GRPO_ROWS_H
#define GRPO_ROWS_H

#include "net/cache.h"

struct rows {
    int N;
    /* what enters: a token */
    const int32_t *ids;                  /* (N) */
    /* where it stands */
    const int32_t *positions;            /* (N) */
    /* what it sees: rows of this batch, by segments; or, where keys is given, positions before it in pages of the
       cache */
    const struct segment *segments;      /* (n_segments) */
    int n_segments;
    const struct key_pages *keys;        /* N slots */
    /* where its keys and values are put: nowhere, or at place[i] of the cache (ops.def: kv_store) */
    struct cache *cache;
    const int32_t *place;                /* (N) */
};

/* Rows whose hidden state predicts a token, and what carries loss there: not the same thing as what a row sees. */
struct targets {
    int R;
    const int32_t *rows, *ids;           /* (R) row of the batch; the token it should predict */
    float *logp, *entropy;               /* (R) out */
    const float *coef, *ecoef; /* (R) d objective / d logp, d objective / d entropy; ecoef NULL: no such term */
};

#endif
