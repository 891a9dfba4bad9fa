#include "net/stash.h"

#include <assert.h>
#include <stdlib.h>

#include "base/base.h"

int stash_save(const struct device *d, const struct stash_field *fields, int n, const int32_t *rows, int N) {
    for (int i = 0; i < n; i++) TRY(op_put_rows(d, fields[i].there, fields[i].here, rows, N, fields[i].C));
    return OK;
}

int stash_load(const struct device *d, const struct stash_field *fields, int n, const int32_t *rows, int N) {
    for (int i = 0; i < n; i++) TRY(op_gather_rows(d, fields[i].here, fields[i].there, rows, N, fields[i].C));
    return OK;
}

/* Everything but x, as of lay_out_mlp */
static void lay_out_attention(struct attention_stash *t, struct layout *memory, const struct widths *w,
                              size_t real_size, size_t rows) {
    t->qkv = layout_take(memory, rows * (size_t)w->qkv, real_size);
    t->heads = layout_take(memory, rows * (size_t)w->heads, real_size);
    t->lse = layout_take(memory, rows * (size_t)w->n_heads, sizeof(float));
    if (w->post_norms) t->result = layout_take(memory, rows * (size_t)w->model, real_size);
}

static void lay_out_mlp(struct mlp_stash *t, struct layout *memory, const struct widths *w, size_t real_size,
                        size_t rows) {
    t->gate_up = layout_take(memory, rows * (size_t)w->up, real_size);
    if (w->post_norms) t->result = layout_take(memory, rows * (size_t)w->model, real_size);
}

static void lay_out_layer(struct layer_stash *t, struct layout *memory, const struct widths *w, size_t real_size,
                          size_t rows) {
    lay_out_mlp(&t->mlp, memory, w, real_size, rows);
    t->mlp.x = layout_take(memory, rows * (size_t)w->model, real_size);
    lay_out_attention(&t->attention, memory, w, real_size, rows);
}

void stashes_lay_out(struct stashes *t, struct layout *memory, const struct spec *s, size_t real_size, size_t rows,
                     int for_pass) {
    struct layer_stash shared = {0};
    struct widths widest = spec_widths(s);
    if (t->what != STASH_ALL && for_pass) lay_out_layer(&shared, memory, &widest, real_size, rows);
    t->out = layout_take(memory, rows * (size_t)s->d_model, real_size);
    for (int l = 0; l < s->n_layers; l++) {
        struct layer_stash own = shared;
        struct widths w = layer_widths(s, l);
        if (t->what == STASH_ALL) lay_out_layer(&own, memory, &w, real_size, rows);
        if (t->what == STASH_NOTHING)
            own.attention.x = own.mlp.x = t->out;         /* the residual stream is updated in place */
        else own.attention.x = layout_take(memory, rows * (size_t)s->d_model, real_size);
        if (t->layers) t->layers[l] = own;
    }
}

/* Bit i: layers have rope i */
static unsigned ropes_of_layers(const struct spec *s) {
    unsigned ropes = 0;
    for (int l = 0; l < s->n_layers; l++) ropes |= 1u << s->layers[l].attention.rope;
    return ropes;
}

static void lay_out_forward(struct activations *a, struct layout *memory, const struct spec *s, size_t real_size) {
    struct widths w = spec_widths(s);
    size_t rows = (size_t)a->rows_max, head = (size_t)a->head_rows_max, d = (size_t)s->d_model;
    a->normed = layout_take(memory, rows * d, real_size);
    a->rotated = layout_take(memory, rows * (size_t)w.qkv, real_size);
    a->gated = layout_take(memory, rows * (size_t)w.mlp, real_size);
    a->stats.rstd = layout_take(memory, rows, sizeof(float));
    if (s->norm == NORM_LAYER) a->stats.mean = layout_take(memory, rows, sizeof(float));
    for (int i = 0; i < s->n_ropes; i++) {
        if (!(ropes_of_layers(s) >> i & 1)) continue;
        a->cos[i] = layout_take(memory, rows * (size_t)w.head_dim / 2, sizeof(float));
        a->sin[i] = layout_take(memory, rows * (size_t)w.head_dim / 2, sizeof(float));
    }
    if (s->log_after) a->q_scale = layout_take(memory, rows, sizeof(float));
    a->picked = layout_take(memory, head * d, real_size);
    a->hidden = layout_take(memory, head * d, real_size);
    a->picked_stats.rstd = layout_take(memory, head, sizeof(float));
}

static void lay_out_backward(struct activations *a, struct layout *memory, const struct spec *s, size_t real_size) {
    struct widths w = spec_widths(s);
    size_t rows = (size_t)a->rows_max, head = (size_t)a->head_rows_max, d = (size_t)s->d_model;
    a->dx = layout_take(memory, rows * d, real_size);
    a->dnormed = layout_take(memory, rows * d, real_size);
    a->dheads = layout_take(memory, rows * (size_t)w.heads, real_size);
    a->dqkv = layout_take(memory, rows * (size_t)w.qkv, real_size);
    if (w.post_norms) a->dresult = layout_take(memory, rows * d, real_size);
    a->dhidden = layout_take(memory, head * d, real_size);
    a->dpicked = layout_take(memory, head * d, real_size);
}

static size_t lay_out(struct activations *a, char *base, const struct ops *ops, const struct spec *s) {
    struct layout memory = {base, 0};
    size_t real_size = (size_t)ops->real_size;
    stashes_lay_out(&a->stash, &memory, s, real_size, (size_t)a->rows_max, 1);
    lay_out_forward(a, &memory, s, real_size);
    if (a->stash.what != STASH_NOTHING) lay_out_backward(a, &memory, s, real_size);
    return memory.at;
}

int turn_ropes(struct activations *a, const struct rows *r) {
    const struct weights *w = a->weights;
    const struct spec *s = &w->spec;
    const int32_t *stretch = s->stretch_after ? r->positions + (size_t)s->axes * (size_t)r->N : NULL;
    for (int l = 0, done = 0; l < s->n_layers; l++) {
        const struct attention_spec *attention = &s->layers[l].attention;
        int rope = attention->rope;
        if (done >> rope & 1) continue;
        done |= 1 << rope;
        TRY(op_rope_table(&w->device, a->cos[rope], a->sin[rope], r->positions, inv_freq_of(w, rope), axis_of(w, rope),
                          stretch, s->ropes[rope].scale, r->N, attention->head_dim));
    }
    return s->log_after ? op_log_scale(&w->device, a->q_scale, r->positions, s->log_after, r->N) : OK;
}

real *next_stream(const struct activations *a, int l) {
    return l + 1 < a->weights->spec.n_layers ? a->stash.layers[l + 1].attention.x : a->stash.out;
}

int check_rows(const struct activations *a, int N) {
    return N <= a->rows_max ? OK : fail(E_CONFIG, "a batch of %d rows, planned for %d", N, a->rows_max);
}

size_t activations_bytes(const struct ops *ops, const struct spec *s, enum stashing what, int rows, int head_rows) {
    struct activations a = {.rows_max = rows, .head_rows_max = head_rows, .stash.what = what};
    return lay_out(&a, NULL, ops, s);
}

int activations_create(struct activations *a, const struct weights *w, enum stashing what, int rows, int head_rows) {
    const struct spec *s = &w->spec;
    *a = (struct activations){.weights = w, .rows_max = rows, .head_rows_max = head_rows, .stash.what = what};
    a->bytes = lay_out(a, NULL, w->device.ops, s);
    a->stash.layers = calloc((size_t)s->n_layers, sizeof *a->stash.layers);
    if (a->stash.layers) return OK;
    activations_free(a);
    return fail(E_MEMORY, "no memory for %d layers", s->n_layers);
}

void activations_place(struct activations *a, void *arena) {
    size_t used = lay_out(a, arena, a->weights->device.ops, &a->weights->spec);
    assert(used == a->bytes && (uintptr_t)arena % 64 == 0);
    (void)used;
}

void activations_free(struct activations *a) {
    free(a->stash.layers);
    *a = (struct activations){0};
}
