#include "net/resampler.h"

#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "net/grid.h"
#include "net/project.h"

/* -- sizes --------------------------------------------------------------------------------------------------------- */

/* Rows of an image: of its patches, of its queries, of both */
struct image_rows {
    int patches, queries, all;
};
static struct image_rows rows_of(const struct spec *s) {
    int patches = (int)rows_of_features(s, s->vision.queries, 1);
    int queries = round_up(s->vision.queries, ROW_ALIGN);
    return (struct image_rows){patches, queries, patches + queries};
}

/* The rows of a batch of n images, and its tables in memory; base NULL: only measured */
static void number(struct resampler *r, const struct spec *s, int n) {
    struct image_rows image = rows_of(s);
    r->images = n;
    r->N = n * image.patches;
    r->Q = n * image.queries;
    r->A = n * image.all;
}
static void lay_out_tables(struct pool_tables *t, struct layout *memory, const struct resampler *r,
                           const struct spec *s) {
    size_t N = (size_t)r->N, Q = (size_t)r->Q, A = (size_t)r->A, images = (size_t)r->images;
    t->patch_rows = layout_take(memory, N, sizeof *t->patch_rows);
    t->query_rows = layout_take(memory, Q, sizeof *t->query_rows);
    t->ids = layout_take(memory, Q, sizeof *t->ids);
    t->sources_of = layout_take(memory, 2 * A, sizeof *t->sources_of);
    t->placed = layout_take(memory, A, sizeof *t->placed);
    t->parts = layout_take(memory, 3 * A, sizeof *t->parts);
    t->taps = layout_take(memory, A * BICUBIC_TAPS, sizeof *t->taps);
    t->tap_weights = layout_take(memory, A * BICUBIC_TAPS, sizeof *t->tap_weights);
    t->segments = layout_take(memory, 2 * images, sizeof *t->segments);
    t->cells = layout_take(memory, images * (size_t)s->vision.queries, sizeof *t->cells);
}

void resampler_lay_out(struct resampler *r, struct layout *memory, const struct ops *ops, const struct spec *s,
                       int patches, int backward) {
    struct layout tables = {0};
    number(r, s, patches / rows_of(s).patches);
    size_t N = (size_t)r->N, Q = (size_t)r->Q, A = (size_t)r->A, E = (size_t)s->vision.out;
    size_t real_size = (size_t)ops->real_size;
    real **of_patches[] = {&r->projected, &r->kv};
    real **of_queries[] = {&r->asked, &r->pooled, &r->gathered, &r->normed, &r->features};
    real **of_all[] = {&r->sources, &r->positions, &r->heads};
    for (int i = 0; i < 2; i++) *of_patches[i] = layout_take(memory, N * E, real_size);
    for (int i = 0; i < 5; i++) *of_queries[i] = layout_take(memory, Q * E, real_size);
    for (int i = 0; i < 3; i++) *of_all[i] = layout_take(memory, A * E, real_size);
    r->inputs = layout_take(memory, 2 * A * E, real_size);
    r->products = layout_take(memory, 2 * A * 3 * E, real_size);
    r->qkv = layout_take(memory, A * 3 * E, real_size);
    r->lse = layout_take(memory, A * (size_t)s->vision.pool.heads, sizeof *r->lse);
    r->stats.mean = layout_take(memory, A, sizeof *r->stats.mean);
    r->stats.rstd = layout_take(memory, A, sizeof *r->stats.rstd);
    if (backward) {
        r->dqkv = layout_take(memory, A * 3 * E, real_size);
        r->dsome = layout_take(memory, A * E, real_size);
        r->scratch = layout_take(memory, A * E, real_size);
    }
    lay_out_tables(&r->at, &tables, r, s);
    r->tables = layout_take(memory, tables.at, 1);
}

void resampler_limits(struct op_limits *need, const struct spec *s, int n) {
    struct image_rows image = rows_of(s);
    need->rows = max_int(need->rows, 2 * n * image.all);
    need->segments = max_int(need->segments, 2 * n);
    need->max_position = max_int(need->max_position, image.all);
}

/* -- tables -------------------------------------------------------------------------------------------------------- */

static void number_image(const struct pool_tables *t, const struct spec *s, int i) {
    struct image_rows image = rows_of(s);
    int first = i * image.all, queries = s->vision.queries;
    for (int j = 0; j < image.patches; j++) t->patch_rows[i * image.patches + j] = first + j;
    for (int j = 0; j < image.queries; j++) {
        t->query_rows[i * image.queries + j] = first + image.patches + j;
        t->ids[i * image.queries + j] = j < queries ? j : 0;
    }
    for (int j = 0; j < queries; j++) t->cells[i * queries + j] = i * image.queries + j;
    for (int row = first; row < first + image.all; row++) {
        int with = first + row, without = with + image.all;            /* rows of the product */
        t->sources_of[with] = t->sources_of[without] = row;
        t->placed[row] = with;
        t->parts[3 * row] = 3 * with;
        t->parts[3 * row + 1] = 3 * with + 1;
        t->parts[3 * row + 2] = 3 * without + 2;
    }
}

/* Padding has no position: its taps weigh nothing. */
static void place_image(const struct pool_tables *t, const struct spec *s, int i) {
    struct image_rows image = rows_of(s);
    int side = s->vision.grid_side, square = (int)lround(sqrt(s->vision.queries)), first = i * image.all;
    for (int j = 0; j < side * side; j++) {
        size_t at = (size_t)(first + j) * BICUBIC_TAPS;
        bicubic_taps(t->taps + at, t->tap_weights + at, square, j / side, j % side, side, side);
    }
    for (int j = 0; j < s->vision.queries; j++) {
        size_t at = (size_t)(first + image.patches + j) * BICUBIC_TAPS;
        t->taps[at] = j;
        t->tap_weights[at] = 1;
    }
    t->segments[2 * i] = (struct segment){.start = first, .len = side * side};
    t->segments[2 * i + 1] = (struct segment){
        .start = first + image.patches, .len = s->vision.queries, .prefix = first, .prefix_len = side * side};
}

static int begin_batch(struct resampler *r, const struct weights *w, int n) {
    const struct spec *s = &w->spec;
    struct pool_tables host;
    struct layout there = {r->tables, 0}, size = {0};
    r->weights = w;
    number(r, s, n);
    lay_out_tables(&r->at, &there, r, s);
    lay_out_tables(&host, &size, r, s);
    char *memory = calloc(size.at, 1);
    if (!memory) return fail(E_MEMORY, "no memory for the rows of %d images", n);
    lay_out_tables(&host, &(struct layout){memory, 0}, r, s);
    for (int i = 0; i < n; i++) number_image(&host, s, i);
    for (int i = 0; i < n; i++) place_image(&host, s, i);
    int status = device_upload(&w->device, r->tables, memory, size.at);
    free(memory);
    return status;
}

/* -- forward ------------------------------------------------------------------------------------------------------- */

static int part(const struct weights *w) { return w->spec.n_layers; }
static size_t bytes_of(const struct weights *w, int rows, int columns) {
    return (size_t)rows * (size_t)columns * (size_t)w->device.ops->real_size;
}

/* inputs (2 A, E) */
static int place_sources(struct resampler *r, const real *x) {
    const struct weights *w = r->weights;
    const struct device *d = &w->device;
    int E = w->spec.vision.out, queries = w->spec.vision.queries;
    TRY(project(w, part(w), P_pool_kv, r->projected, x, r->N));
    TRY(norm(w, part(w), P_pool_kv_norm, r->kv, r->stats, r->projected, r->N));
    TRY(op_embed(d, r->asked, values_of(w, part(w), P_pool_query), r->at.ids, 1, r->Q, E, queries));
    TRY(norm(w, part(w), P_pool_query_norm, r->normed, r->stats, r->asked, r->Q));
    TRY(op_put_rows(d, r->sources, r->kv, r->at.patch_rows, r->N, E));
    TRY(op_put_rows(d, r->sources, r->normed, r->at.query_rows, r->Q, E));
    TRY(op_gather_rows(d, r->inputs, r->sources, r->at.sources_of, 2 * r->A, E));
    TRY(op_embed_mix(d, r->positions, values_of(w, part(w), P_pool_positions), r->at.taps, r->at.tap_weights, 1, r->A,
                     BICUBIC_TAPS, E, queries));
    return op_scatter_rows_add(d, r->inputs, r->positions, r->at.placed, r->A, E);
}

int resampler_forward(struct resampler *r, const struct weights *w, real *out, const real *x, int n) {
    const struct spec *s = &w->spec;
    const struct device *d = &w->device;
    struct attention_shape shape = shape_of_attention(&s->vision.pool);
    int E = s->vision.out;
    TRY(begin_batch(r, w, n));
    TRY(place_sources(r, x));
    TRY(project(w, part(w), P_pool_in, r->products, r->inputs, 2 * r->A));
    TRY(op_gather_rows(d, r->qkv, r->products, r->at.parts, 3 * r->A, E));
    TRY(op_attention(d, r->heads, r->lse, r->qkv, r->at.segments, 2 * n, r->A, &shape));
    TRY(op_gather_rows(d, r->pooled, r->heads, r->at.query_rows, r->Q, E));
    TRY(project(w, part(w), P_pool_out, r->gathered, r->pooled, r->Q));
    TRY(norm(w, part(w), P_pool_post_norm, r->normed, r->stats, r->gathered, r->Q));
    /* files have this matrix the other way round, (in, out): dx's product is its forward */
    TRY(project_dx(w, part(w), P_pool_project, r->features, r->normed, r->Q));
    return op_gather_rows(d, out, r->features, r->at.cells, n * s->vision.queries, E);
}

/* -- backward ------------------------------------------------------------------------------------------------------ */

/* pooled: what attention gave -> its gradient */
static int leave(struct resampler *r, const struct gradients *grads, const real *d_out) {
    const struct weights *w = r->weights;
    const struct device *d = &w->device;
    int E = w->spec.vision.out, n = r->images * w->spec.vision.queries;
    real *dnormed = r->normed, *dgathered = r->dsome;
    TRY(op_zero(d, r->features, bytes_of(w, r->Q, E)));
    TRY(op_put_rows(d, r->features, d_out, r->at.cells, n, E));
    TRY(project_dw(w, part(w), P_pool_project, grads, r->normed, r->features, r->Q));
    TRY(project(w, part(w), P_pool_project, dnormed, r->features, r->Q));
    TRY(norm_backward(w, part(w), P_pool_post_norm, dgathered, grads, dnormed, r->gathered, r->scratch, r->stats,
                      r->Q));
    TRY(project_dw(w, part(w), P_pool_out, grads, dgathered, r->pooled, r->Q));
    return project_dx(w, part(w), P_pool_out, r->pooled, dgathered, r->Q);
}

/* sources = their gradient, from that of pooled */
static int attend_backward(struct resampler *r, const struct gradients *grads) {
    const struct weights *w = r->weights;
    const struct device *d = &w->device;
    struct attention_shape shape = shape_of_attention(&w->spec.vision.pool);
    int E = w->spec.vision.out;
    real *dheads = r->positions, *dproducts = r->products, *dinputs = r->inputs;
    TRY(op_zero(d, dheads, bytes_of(w, r->A, E)));
    TRY(op_put_rows(d, dheads, r->pooled, r->at.query_rows, r->Q, E));
    TRY(op_attention_bwd(d, r->dqkv, dheads, r->heads, r->lse, r->qkv, r->at.segments, 2 * r->images, r->A, &shape));
    TRY(op_zero(d, dproducts, bytes_of(w, 2 * r->A, 3 * E)));
    TRY(op_put_rows(d, dproducts, r->dqkv, r->at.parts, 3 * r->A, E));
    TRY(project_dw(w, part(w), P_pool_in, grads, dproducts, r->inputs, 2 * r->A));
    TRY(project_dx(w, part(w), P_pool_in, dinputs, dproducts, 2 * r->A));
    TRY(op_zero(d, r->sources, bytes_of(w, r->A, E)));
    return op_scatter_rows_add(d, r->sources, dinputs, r->at.sources_of, 2 * r->A, E);
}

int resampler_backward(struct resampler *r, real *dx, const struct gradients *grads, const real *d_out, const real *x) {
    const struct weights *w = r->weights;
    const struct device *d = &w->device;
    int E = w->spec.vision.out, queries = w->spec.vision.queries;
    real *dnormed = r->dsome, *dprojected = r->kv, *dasked = r->pooled;
    TRY(leave(r, grads, d_out));
    TRY(attend_backward(r, grads));
    TRY(op_gather_rows(d, dnormed, r->sources, r->at.query_rows, r->Q, E));
    TRY(norm_backward(w, part(w), P_pool_query_norm, dasked, grads, dnormed, r->asked, r->scratch, r->stats, r->Q));
    TRY(op_embed_dw(d, gradient_of(w, grads, part(w), P_pool_query), dasked, r->at.ids, 1, r->Q, E, queries));
    TRY(op_gather_rows(d, dnormed, r->sources, r->at.patch_rows, r->N, E));
    TRY(norm_backward(w, part(w), P_pool_kv_norm, dprojected, grads, dnormed, r->projected, r->scratch, r->stats,
                      r->N));
    TRY(project_dw(w, part(w), P_pool_kv, grads, dprojected, x, r->N));
    return dx ? project_dx(w, part(w), P_pool_kv, dx, dprojected, r->N) : OK;
}
