/* Floor 2: the text decoder, forward, backward and one decode step, written once against ops.def.
   A batch is packed rows (no padding inside a sequence); a group is its prompt's rows followed by its completions' rows. */
#ifndef GRPO_TEXT_H
#define GRPO_TEXT_H

#include "model/model.h"

/* Rows of one packed batch; everything behind pointers is backend memory. */
struct batch {
    int N, R, n_segments;
    int32_t *ids, *pos;              /* (N) token and absolute position */
    struct segment *segments;        /* (n_segments) */
    int32_t *rows, *targets;         /* (R) row whose hidden state predicts, and what it should predict */
    int32_t *kept;                   /* (N) row of a store that holds its activations (text_recall) */
    float *coef, *ecoef;             /* (R) d objective / d logp, d objective / d entropy */
    float *logp, *entropy;           /* (R) out */
    int rows_max, head_rows_max, segments_max;
};

enum keep { KEEP_NONE,               /* inference: one layer's buffers serve all layers                       */
            KEEP_ROWS,               /* a store of rows that cannot run itself (kept.h)                       */
            KEEP_ROW_INPUTS,         /* likewise, of each layer's input alone                                  */
            KEEP_INPUTS,             /* training with recompute: only each layer's input is kept              */
            KEEP_ALL };              /* training: what the backward reads is kept (not norms and SwiGLU's output,
                                        which are cheaper to compute again than to store) */

struct stash {                       /* of one layer, N rows */
    real *x, *x2;                    /* (N, d) input of the attention half, of the MLP half */
    float *rstd1, *rstd2;            /* (N) */
    real *qkv;                       /* (N, (Hq + 2 Hkv) D) before rope */
    real *att;                       /* (N, Hq D) */
    float *lse;                      /* (N, Hq) */
    real *gate_up;                   /* (N, 2 F) */
};

struct activations {
    struct model *m;
    enum keep keep;
    int rows_max, head_rows_max;
    size_t bytes;                    /* of the arena that activations_place() lays out */
    struct stash *layers;            /* (n_layers), aliased as `keep` says */
    real *out;                       /* (N, d) after the last layer */
    real *normed, *rotated, *act;    /* (N, d), (N, QKV), (N, F) scratch of a block */
    float *cos, *sin;                /* (N, D/2) */
    real *picked, *hidden;           /* (R, d) rows that predict, before and after the final norm */
    float *rstd;                     /* (R) */
    real *dx, *dnormed, *datt, *dqkv, *dhidden, *dpicked;     /* backward only */
};

size_t activations_bytes(const struct ops *ops, const struct config *c, enum keep keep, int rows, int head_rows);
/* Sizes for the largest batch; nothing can run before activations_place() gave it `bytes` of backend memory. */
int activations_create(struct activations *a, struct model *m, enum keep keep, int rows, int head_rows);
void activations_place(struct activations *a, void *arena);
void activations_free(struct activations *a);

/* KV pool: per layer n_pages pages of KV_TILE positions. */
struct kv {
    struct model *m;
    int n_pages;
    void *arena;                     /* kv_bytes() of backend memory */
    size_t page_bytes, layer_bytes;
};
size_t kv_bytes(const struct ops *ops, const struct config *c, int n_pages);
int kv_place(struct kv *kv, struct model *m, int n_pages, void *arena);
int kv_copy_pages(struct kv *kv, const int32_t *dst, const int32_t *src, int n);      /* in every layer */

/* Where a forward leaves a copy of its rows' activations: row i in row rows[i] of store. */
struct keeper { struct activations *store; const int32_t *rows; };

/* Hidden states of the batch; with kv, row i's keys and values also go to place[i] (see ops.def: kv_store). keeper may be NULL. */
int text_forward(struct activations *a, const struct batch *b, struct kv *kv, const int32_t *place, const struct keeper *keeper);
/* What text_forward would leave in `a` (KEEP_ALL from KEEP_ROWS, KEEP_INPUTS from either store), taken from where the keeper put it. */
int text_recall(struct activations *a, const struct batch *b, const struct keeper *keeper);
/* batch.logp, batch.entropy of the R rows after text_forward. */
int text_head(struct activations *a, const struct batch *b, float inv_temperature);
/* After text_forward with keep != KEEP_NONE: logp and entropy as text_head, and grads (fp32 arena) +=
   gradient of sum coef logp + ecoef entropy (has_ecoef 0: no entropy term), except the embedding's: its dx (N, d) is left in
   a->dx for text_embed_backward, which the caller runs after the step's last micro-batch. A tied embedding collects head
   and scatter in one buffer, and only this order is the same for every split of the step (C2). */
int text_backward(struct activations *a, const struct batch *b, float *grads, float inv_temperature, int has_ecoef);
int text_embed_backward(struct model *m, float *grads, const real *dx, const int32_t *ids, int N);

/* One token for each of S slots: a->hidden (S, d) = final-normed states. Row s stores its key at place[s] and
   sees length[s] keys through pages (S, max_pages); shared_pages as of struct key_pages. */
int text_decode(struct activations *a, struct kv *kv, const int32_t *ids, const int32_t *pos, const int32_t *place,
                const int32_t *pages, const int32_t *length, int S, int max_pages, int shared_pages, const struct keeper *keeper);
/* a->hidden (n, d) = final norm of rows[0..n) of the batch just run. */
int text_pick(struct activations *a, const int32_t *rows, int n);
const weight *text_head_weight(const struct model *m);

#endif
