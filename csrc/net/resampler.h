/* Floor 3: a resampler: queries, which are parameters, attend to the patches of an image, and what each of them gathers
   becomes a feature. Of patches x (N, d) of an image, with the table of positions pos (queries, E):

       kv = norm(x Wkv^T; kv_norm)              q = norm(query; query_norm) + pos
       keys = kv + interp(pos), values = kv     interp: bicubic, to the image's grid
       features = norm(attention(q, keys, values); post_norm) project

   where attention() has products of its own, with biases, one in front of it for q, k and v, and one behind it. */
#ifndef GRPO_RESAMPLER_H
#define GRPO_RESAMPLER_H

#include "net/norms.h"

struct layout;

/* Rows of A = N + images round_up(queries, ROW_ALIGN) hold an image's patches, padding and all, and then its queries,
   so that gradients do not depend on how images are batched. The product of q, k and v is of 2 A rows: an image's rows
   with their positions, which q and k are taken from, and then the same without, for v. E: columns of a feature. */
struct pool_tables {
    int32_t *patch_rows, *query_rows; /* (N), (Q) where they are among A */
    int32_t *ids; /* (Q) which query */
    int32_t *sources_of, *placed; /* (2 A) row of A of each row of the product; (A) its row with positions */
    int32_t *parts; /* (3 A) row of products (6 A, E) of q, of k, of v of each of A */
    int32_t *taps; /* (A, BICUBIC_TAPS) */
    float *tap_weights;
    struct segment *segments; /* (2 images) of keys, which see nothing, and of queries, which see them */
    int32_t *cells; /* (images queries) row of Q of each feature */
};
struct resampler {
    const struct weights *weights;
    int images, A, N, Q; /* of the batch at hand: Q rows of queries, padding and all */
    real *projected, *kv; /* (N, E) before and after the norm */
    real *asked, *pooled, *gathered; /* (Q, E) queries before their norm; heads; what the product behind them made */
    real *normed, *features; /* (Q, E) */
    real *sources, *positions; /* (A, E) kv and normed queries; what is added to them */
    real *inputs, *products; /* (2 A, E), (2 A, 3 E) */
    real *qkv, *heads; /* (A, 3 E), (A, E) */
    float *lse; /* (A, heads) */
    struct norm_stats stats; /* (A) */
    real *dqkv, *dsome, *scratch; /* (A, 3 E), (A, E), (A, E) backward only */
    void *tables; /* memory of those of the largest batch */
    struct pool_tables at;
};

/* Room for so many rows of patches, from memory; layout's base NULL: only measured */
void resampler_lay_out(struct resampler *r, struct layout *memory, const struct ops *ops, const struct spec *s,
                       int patches, int backward);
/* Limits of the ops that it calls for n images */
void resampler_limits(struct op_limits *need, const struct spec *s, int n);
/* out (n queries, E) from x (rows of n images, d) */
int resampler_forward(struct resampler *r, const struct weights *w, real *out, const real *x, int n);
/* grads += from d (n queries, E) of the batch just run; dx (rows, d) = , unless NULL */
int resampler_backward(struct resampler *r, real *dx, const struct gradients *grads, const real *d, const real *x);

#endif
