#include "net/vision.h"

#include <assert.h>
#include <stdlib.h>

#include "base/base.h"
#include "net/attention.h"
#include "net/mlp.h"
#include "net/project.h"
#include "net/reserve.h"

/* -- memory -------------------------------------------------------------------------------------------------------- */

static size_t lay_out(struct tower *t, char *base, const struct ops *ops, const struct spec *s, int patches) {
    struct layout memory = {base, t->acts.bytes};
    size_t N = (size_t)patches, cells = N / (size_t)cell_patches(s), real_size = (size_t)ops->real_size;
    size_t columns = (size_t)cell_columns(s);
    t->pixels = layout_take(&memory, N * (size_t)patch_columns(s), real_size);
    t->chunk = layout_take(&memory, (size_t)PATCH_CHUNK * (size_t)patch_columns(s), sizeof *t->chunk);
    t->positions = layout_take(&memory, 2 * N, sizeof *t->positions);
    t->cells = layout_take(&memory, cells, sizeof *t->cells);
    if (s->vision.table_side) t->taps = layout_take(&memory, N * TAPS, sizeof *t->taps);
    if (s->vision.table_side) t->tap_weights = layout_take(&memory, N * TAPS, sizeof *t->tap_weights);
    t->segments = layout_take(&memory, cells, sizeof *t->segments);
    t->windows = layout_take(&memory, cells, sizeof *t->windows);
    for (int k = 0; k < s->vision.n_mergers; k++) t->up[k] = layout_take(&memory, cells * columns, real_size);
    t->gelu = layout_take(&memory, cells * columns, real_size);
    t->merged = layout_take(&memory, cells * (size_t)s->vision.out, real_size);
    return memory.at;
}

size_t tower_bytes(const struct ops *ops, const struct spec *s, enum stashing what, int patches) {
    struct tower t = {.acts.bytes = activations_bytes(ops, s, what, patches, 0)};
    return lay_out(&t, NULL, ops, s, patches);
}

int tower_create(struct tower *t, const struct weights *w, enum stashing what, int patches) {
    *t = (struct tower){.weights = w};
    TRY(activations_create(&t->acts, w, what, patches, 0));
    t->bytes = lay_out(t, NULL, w->device.ops, &w->spec, patches);
    return OK;
}

void tower_place(struct tower *t, void *arena) {
    size_t used = lay_out(t, arena, t->weights->device.ops, &t->weights->spec, t->acts.rows_max);
    assert(used == t->bytes && t->acts.bytes % 64 == 0);
    (void)used;
    activations_place(&t->acts, arena);
}

void tower_free(struct tower *t) {
    grid_tables_free(&t->tables);
    activations_free(&t->acts);
    *t = (struct tower){0};
}

/* -- a batch ------------------------------------------------------------------------------------------------------- */

static int upload_tables(struct tower *t) {
    const struct device *d = &t->weights->device;
    const struct grid_tables *g = &t->tables;
    size_t N = (size_t)g->N;
    TRY(device_upload(d, t->positions, g->positions, 2 * N * sizeof *g->positions));
    TRY(device_upload(d, t->cells, g->cells, (size_t)g->n_cells * sizeof *g->cells));
    TRY(device_upload(d, t->segments, g->segments, (size_t)g->n_segments * sizeof *g->segments));
    TRY(device_upload(d, t->windows, g->windows, (size_t)g->n_windows * sizeof *g->windows));
    if (!g->taps) return OK;
    TRY(device_upload(d, t->taps, g->taps, N * TAPS * sizeof *g->taps));
    return device_upload(d, t->tap_weights, g->tap_weights, N * TAPS * sizeof *g->tap_weights);
}

/* HOST rows [begin, begin + n) of the batch; *image: that of the last row staged before; *end: the first row after it */
static void stage_pixels(float *host, const struct tower *t, const struct picture *list, int *image, int *end,
                         int begin, int n) {
    const struct spec *s = &t->weights->spec;
    size_t columns = (size_t)patch_columns(s);
    for (int i = begin; i < begin + n; i++, host += columns) {
        while (i >= *end) *end += picture_rows(s, &list[++*image], 1);
        int source = t->tables.source[i];
        if (source < 0) memset(host, 0, columns * sizeof *host);
        else memcpy(host, list[*image].pixels + (size_t)source * columns, columns * sizeof *host);
    }
}

/* The batch's pixels in the order of its rows, zeros in padding */
static int upload_pixels(struct tower *t, const struct picture *list) {
    const struct device *d = &t->weights->device;
    size_t columns = (size_t)patch_columns(&t->weights->spec);
    float *host = malloc(PATCH_CHUNK * columns * sizeof *host);
    int status = host ? OK : fail(E_MEMORY, "no memory for %d patches", PATCH_CHUNK), image = -1, end = 0;
    for (int begin = 0, n; begin < t->tables.N && !status; begin += n) {
        n = min_int(PATCH_CHUNK, t->tables.N - begin);
        stage_pixels(host, t, list, &image, &end, begin, n);
        size_t done = (size_t)begin * columns * (size_t)d->ops->real_size;
        status = device_upload(d, t->chunk, host, (size_t)n * columns * sizeof *host);
        if (!status) status = op_cast(d, (char *)t->pixels + done, t->chunk, (size_t)n * columns);
    }
    free(host);
    return status;
}

static int begin_batch(struct tower *t, const struct picture *list, int n) {
    const struct spec *s = &t->weights->spec;
    grid_tables_free(&t->tables);
    TRY(grid_tables_create(&t->tables, s, list, n));
    struct grid_tables *g = &t->tables;
    TRY(check_rows(&t->acts, g->N));
    struct op_limits need = {.rows = g->N,
                             .head_rows = 1,
                             .slots = 1,
                             .segments = max_int(g->n_segments, g->n_windows),
                             .max_position = max_int(g->longest, 1)};
    int columns = max_int(max_int(cell_columns(s), patch_columns(s)), s->vision.out);
    TRY(reserve_for(t->weights, need, columns));
    TRY(upload_tables(t));
    TRY(upload_pixels(t, list));
    t->rows = (struct rows){.N = g->N,
                            .positions = t->positions,
                            .segments = t->segments,
                            .n_segments = g->n_segments,
                            .windows = t->windows,
                            .n_windows = g->n_windows};
    return OK;
}

/* -- forward ------------------------------------------------------------------------------------------------------- */

/* x0 (N, d) = patches, and the position table where there is one */
static int enter_patches(struct tower *t, real *x) {
    const struct weights *w = t->weights;
    const struct spec *s = &w->spec;
    int N = t->rows.N, side = s->vision.table_side;
    if (!side) return project(w, -1, P_patch, x, t->pixels, N);
    TRY(op_embed_mix(&w->device, x, values_of(w, -1, P_position_table), t->taps, t->tap_weights, 1, N, TAPS, s->d_model,
                     side * side));
    return project_add(w, -1, P_patch, x, t->pixels, N);
}

/* The norm of a merger: its rows are cells or patches, the numbers are the same either way */
static int norm_rows(const struct tower *t, int k) {
    const struct spec *s = &t->weights->spec;
    return s->vision.mergers[k].joined ? t->rows.N / cell_patches(s) : t->rows.N;
}

static real *merger_input(const struct tower *t, int k) {
    return next_stream(&t->acts, t->weights->spec.vision.mergers[k].after);
}

/* Features of level 0 are the last merger's */
static real *level_of(const struct tower *t, const struct feature_rows *f, int k) {
    const struct spec *s = &t->weights->spec;
    size_t level = (size_t)((k + 1) % s->vision.n_mergers), row = (size_t)s->vision.out;
    return (char *)f->values +
           (level * (size_t)f->n + (size_t)f->first) * row * (size_t)t->weights->device.ops->real_size;
}

static int merge(struct tower *t, int k, const struct feature_rows *out) {
    const struct weights *w = t->weights;
    const struct spec *s = &w->spec;
    struct activations *a = &t->acts;
    int at = s->n_layers + k, cells = t->rows.N / cell_patches(s);
    TRY(norm(w, at, P_merger_norm, a->normed, a->stats, merger_input(t, k), norm_rows(t, k)));
    TRY(project(w, at, P_merger_up, t->up[k], a->normed, cells));
    TRY(op_gelu(&w->device, t->gelu, t->up[k], s->vision.gelu, cells, cell_columns(s)));
    TRY(project(w, at, P_merger_down, t->merged, t->gelu, cells));
    return op_gather_rows(&w->device, level_of(t, out, k), t->merged, t->cells, t->tables.n_cells, s->vision.out);
}

int tower_forward(struct tower *t, const struct feature_rows *out, const struct picture *list, int n) {
    struct activations *a = &t->acts;
    const struct spec *s = &t->weights->spec;
    TRY(begin_batch(t, list, n));
    TRY(enter_patches(t, a->stash.layers[0].attention.x));
    TRY(turn_ropes(a, &t->rows));
    for (int l = 0, k = 0; l < s->n_layers; l++) {
        TRY(attention_forward(a, l, &t->rows, NULL));
        TRY(mlp_forward(a, l, t->rows.N, next_stream(a, l), NULL));
        for (; k < s->vision.n_mergers && s->vision.mergers[k].after == l; k++) TRY(merge(t, k, out));
        TRY(poll_interrupt());
    }
    return OK;
}

/* -- backward: dx is the gradient of the residual stream, += of each merger, of each norm -------------------------- */

static int merge_backward(struct tower *t, int k, const struct feature_rows *d, const struct gradients *grads) {
    const struct weights *w = t->weights;
    const struct spec *s = &w->spec;
    struct activations *a = &t->acts;
    const real *x = merger_input(t, k);
    int at = s->n_layers + k, cells = t->rows.N / cell_patches(s), columns = cell_columns(s);
    real *dmerged = t->merged, *dup = t->gelu;
    TRY(op_gelu(&w->device, t->gelu, t->up[k], s->vision.gelu, cells, columns));
    TRY(op_zero(&w->device, dmerged, (size_t)cells * (size_t)s->vision.out * (size_t)w->device.ops->real_size));
    TRY(op_put_rows(&w->device, dmerged, level_of(t, d, k), t->cells, t->tables.n_cells, s->vision.out));
    TRY(project_dw(w, at, P_merger_down, grads, dmerged, t->gelu, cells));
    TRY(project_dx(w, at, P_merger_down, dup, dmerged, cells));
    TRY(op_gelu_bwd(&w->device, dup, t->up[k], s->vision.gelu, cells, columns));
    TRY(norm(w, at, P_merger_norm, a->normed, a->stats, x, norm_rows(t, k)));
    TRY(project_dw(w, at, P_merger_up, grads, dup, a->normed, cells));
    TRY(project_dx(w, at, P_merger_up, a->dnormed, dup, cells));
    return norm_backward_add(w, at, P_merger_norm, a->dx, grads, a->dnormed, x, a->stats, norm_rows(t, k));
}

static int patches_backward(struct tower *t, const struct gradients *grads) {
    const struct weights *w = t->weights;
    const struct spec *s = &w->spec;
    int side = s->vision.table_side;
    TRY(project_dw(w, -1, P_patch, grads, t->acts.dx, t->pixels, t->rows.N));
    if (!side) return OK;
    return op_embed_mix_dw(&w->device, gradient_of(w, grads, -1, P_position_table), t->acts.dx, t->taps, t->tap_weights,
                           1, t->rows.N, TAPS, s->d_model, side * side);
}

int tower_backward(struct tower *t, const struct feature_rows *d, const struct gradients *grads, int only_mergers) {
    struct activations *a = &t->acts;
    const struct spec *s = &t->weights->spec;
    assert(a->stash.what != STASH_NOTHING);
    TRY(op_zero(&t->weights->device, a->dx, stream_bytes(t->weights, t->rows.N)));
    for (int l = s->n_layers - 1, k = s->vision.n_mergers - 1; l >= 0; l--) {
        for (; k >= 0 && s->vision.mergers[k].after == l; k--) TRY(merge_backward(t, k, d, grads));
        TRY(poll_interrupt());
        if (only_mergers) continue;
        if (a->stash.what == STASH_INPUTS) {
            TRY(attention_forward(a, l, &t->rows, NULL));
            TRY(mlp_forward(a, l, t->rows.N, NULL, NULL));
        }
        TRY(mlp_backward(a, l, t->rows.N, grads));
        TRY(attention_backward(a, l, &t->rows, grads));
        TRY(poll_interrupt());
    }
    return only_mergers ? OK : patches_backward(t, grads);
}
