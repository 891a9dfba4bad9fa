/* Floor 3: what the rows of a batch are: a row is the place of one token, or of one patch of an image. Prefill,
   decode, scoring, training and towers describe their rows in these words; text.h and vision.h run them. Everything
   behind pointers is device memory. */
#ifndef GRPO_ROWS_H
#define GRPO_ROWS_H

#include "net/cache.h"

enum { ROWS_MAX = 1 << 30 };             /* of a step or a cache: so int counts them, padding and all */

/* Vectors that enter in place of tokens (level 0: an image's features), and that are added to the residual stream
   after layers 0, 1, ... (further levels). Vector i is of row rows[i], none twice. */
struct vectors {
    int n, levels;
    const int32_t *rows;                 /* (n) */
    real *values;                        /* (levels, n, d); a backward leaves their gradients there if asked to */
    int differentiate;
};

struct rows {
    int N;
    /* what enters: a token, or a vector */
    const int32_t *ids;                  /* (N) */
    const struct vectors *vectors;       /* NULL: none */
    /* where it stands */
    const int32_t *positions;            /* (position_axes(), N) */
    /* what it sees: rows of this batch, by segments, or in some layers of a tower by windows; or, where keys is
       given, positions before it in pages of the cache */
    const struct segment *segments;      /* (n_segments) */
    const struct segment *windows;       /* (n_windows) */
    int n_segments, n_windows;
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
    /* d objective / d logp, d objective / d entropy; ecoef NULL: no such term */
    const float *coef, *ecoef;           /* (R) */
};

#endif
