/* Floor 3: activations. A stash is what the backward of a part of a layer (attention.h, mlp.h) reads of its forward.
   Around the layers' stashes are the buffers that a pass through the network needs once. */
#ifndef GRPO_STASH_H
#define GRPO_STASH_H

#include "net/norms.h"
#include "net/rows.h"

struct layout;

enum stashing {
    STASH_NOTHING,                   /* inference: one layer's buffers serve all layers */
    STASH_INPUTS,                    /* of each layer its input, from which the backward computes the layer again */
    STASH_ALL,                       /* all that the backward reads but norms and gated values, computed again */
};

struct attention_stash {                 /* N rows */
    real *x;                             /* (N, d) the layer's input */
    real *qkv;                           /* (N, (Hq + 2 Hkv) D) before rope */
    real *heads;                         /* (N, Hq D) what attention returned */
    float *lse;                          /* (N, Hq) */
    real *result;                        /* (N, d) of the projection, where a norm follows it */
};

struct mlp_stash {                       /* N rows */
    real *x;                             /* (N, d) input */
    real *gate_up;                       /* (N, 2 F), or (N, F) of an MLP without a gate */
    real *result;                        /* (N, d) of the projection, where a norm follows it */
};

struct layer_stash {
    struct attention_stash attention;
    struct mlp_stash mlp;
};

struct stashes {
    enum stashing what;
    struct layer_stash *layers;      /* (n_layers), aliased as `what` says */
    real *out;                       /* (N, d) after the last layer */
};

/* Rows of stashes elsewhere: row i of a batch is row rows[i] there (a store's, net/store.h). rows: device memory */
struct stash_rows {
    struct stashes *stashes;
    const int32_t *rows;
};

/* A buffer of a stash here and there, C reals a row. save: there[rows[i]] = here[i]; load: here[i] = there[rows[i]] */
struct stash_field {
    void *here, *there;
    int C;
};
int stash_save(const struct device *d, const struct stash_field *fields, int n, const int32_t *rows, int N);
int stash_load(const struct device *d, const struct stash_field *fields, int n, const int32_t *rows, int N);
/* Columns of reals that hold n floats */
static inline int float_columns(const struct device *d, int n) { return n * (int)sizeof(float) / d->ops->real_size; }

/* Stashes for so many rows; layers NULL: only measured. For a pass through the network what `what` leaves out lies in
   buffers that layers share; a store (for_pass 0) has no such buffers. */
void stashes_lay_out(struct stashes *t, struct layout *memory, const struct spec *s, size_t real_size, size_t rows,
                     int for_pass);

struct activations {
    const struct weights *weights;
    int rows_max, head_rows_max;
    size_t bytes;                            /* of the arena that activations_place() lays out */
    struct stashes stash;
    real *normed, *rotated, *gated;          /* (N, d), (N, (Hq + 2 Hkv) D), (N, F) scratch of a layer */
    struct norm_stats stats;                 /* (N) scratch of a norm */
    float *cos[ROPES_MAX], *sin[ROPES_MAX];  /* (N, D/2) of each rope that layers have */
    float *q_scale;                          /* (N) of queries by their place, where the spec has log_after */
    real *picked, *hidden;                   /* (R, d) rows that predict, before and after the final norm */
    struct norm_stats picked_stats;          /* (R) */
    /* backward only; a d before a name: the gradient of it */
    real *dx;                                /* (N, d) of the residual stream */
    real *dnormed, *dheads, *dqkv;           /* (N, d), (N, Hq D), (N, (Hq + 2 Hkv) D) */
    real *dresult;                           /* (N, d), where layers have post_norms */
    real *dhidden, *dpicked;                 /* (R, d) */
};

/* Tables of the layers' ropes for the rows' positions, and q_scale */
int turn_ropes(struct activations *a, const struct rows *r);
/* Where the result of layer l is */
real *next_stream(const struct activations *a, int l);
int check_rows(const struct activations *a, int N);

size_t activations_bytes(const struct ops *ops, const struct spec *s, enum stashing what, int rows, int head_rows);
/* Sizes for the largest batch; nothing can run before activations_place() gave it `bytes` of device memory. After a
   failure they are as activations_free() leaves them. */
int activations_create(struct activations *a, const struct weights *w, enum stashing what, int rows, int head_rows);
void activations_place(struct activations *a, void *arena);
void activations_free(struct activations *a);

#endif
