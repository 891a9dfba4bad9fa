/* Floor 3: a tower, which makes features of images: patches in, a network whose rows see each other, and mergers that
   turn each cell into a row for the text's stream. Forward and backward, written once against the op table; its layers
   are run by the parts that run a text's (attention.h, mlp.h). */
#ifndef GRPO_VISION_H
#define GRPO_VISION_H

#include "net/grid.h"
#include "net/stash.h"

enum { PATCH_CHUNK = 1024 };             /* patches whose float32 pixels are on the device at once */

struct tower {
    const struct weights *weights;
    struct activations acts;             /* of up to acts.rows_max patches */
    size_t bytes;                        /* of the arena that tower_place() lays out, activations and all */
    struct grid_tables tables;           /* of the batch just run */
    struct rows rows;
    real *pixels;                        /* (N, patch_columns) */
    float *chunk;                        /* (PATCH_CHUNK, patch_columns) */
    int32_t *positions, *cells, *taps;   /* as of grid_tables, of the device */
    float *tap_weights;
    struct segment *segments, *windows;
    real *up[MERGERS_MAX];               /* (N / cell, cell_columns) of each merger, before its GELU */
    real *gelu;                          /* (N / cell, cell_columns) */
    real *merged;                        /* (N / cell, out) what a merger returned, or its gradient */
};

/* Sizes for batches of so many patches, padding and all; nothing can run before tower_place() gave it `bytes` of
   device memory. `what` as of activations: STASH_NOTHING for no backward. */
int tower_create(struct tower *t, const struct weights *w, enum stashing what, int patches);
void tower_place(struct tower *t, void *arena);
void tower_free(struct tower *t);
size_t tower_bytes(const struct ops *ops, const struct spec *s, enum stashing what, int patches);

/* Where the features of some images go, or their gradients come from: (levels, n, out), of which row `first` on;
   levels as of struct vectors */
struct feature_rows {
    real *values;
    int n, first;
};
static inline int feature_levels(const struct spec *s) { return s->vision.n_mergers; }
/* Features of n images, which have passed pictures_check() and have pixels */
int tower_forward(struct tower *t, const struct feature_rows *out, const struct picture *list, int n);
/* grads += those of the tower's weights, or of its mergers' alone, from d: gradients of the features of the batch just
   run */
int tower_backward(struct tower *t, const struct feature_rows *d, const struct gradients *grads, int only_mergers);

#endif
