/* The decoder: what runs a layer is the layer's spec, read by its parts (attention.c, mlp.c). Training, prefill and
   decoding run the same parts and differ in what a row sees alone; that, with "rollout = training" of the op table,
   is why a log-prob recorded while sampling equals the trainer's bit for bit. */
#include "net/text.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "net/attention.h"
#include "net/mlp.h"
#include "net/norms.h"

/* -- limits -------------------------------------------------------------------------------------------------------- */

/* Shapes of a network's matrices, each once */
struct shapes {
    struct weight_shape *list;
    int n;
};
static int add_shape(void *arg, const struct param *p) {
    struct shapes *s = arg;
    if (p->layer < 0 || !p->C) return OK;
    for (int i = 0; i < s->n; i++)
        if (s->list[i].O == p->O && s->list[i].C == p->C) return OK;
    s->list[s->n++] = (struct weight_shape){p->O, p->C};
    return OK;
}

int text_reserve(const struct weights *w, const struct text_limits *need) {
    const struct spec *s = &w->spec;
    struct widths widest = spec_widths(s);
    if (s->max_positions && need->positions > s->max_positions)
        return fail(
            E_CONFIG,
            "a sequence of %d tokens: this model's rope holds for %d positions (max_position_embeddings); beyond them "
            "its scaling would change the keys of earlier tokens",
            need->positions, s->max_positions);
    struct shapes shapes = {.list = malloc((size_t)w->n_params * sizeof *shapes.list)};
    if (!shapes.list) return fail(E_MEMORY, "no memory for %d shapes", w->n_params);
    spec_visit(s, add_shape, &shapes, NULL);
    struct op_limits limits = {
        .rows = need->rows,
        .head_rows = need->head_rows,
        .slots = need->slots,
        .channels = max_int(max_int(s->d_model, 2 * widest.mlp), max_int(widest.qkv, widest.heads)),
        .heads = widest.n_heads,
        .kv_heads = widest.n_kv_heads,
        .head_dim = widest.head_dim,
        .vocab = s->vocab_size,
        .segments = need->segments,
        .max_position = need->positions,
        .shared_pages = need->shared_pages,
        .n_weights = shapes.n,
        .weights = shapes.list,
    };
    int status = device_reserve(&w->device, &limits);
    free(shapes.list);
    return status;
}

/* -- forward ------------------------------------------------------------------------------------------------------- */

/* Tables of every rope for the rows' positions */
static int turn_ropes(struct activations *a, const struct rows *r) {
    const struct weights *w = a->weights;
    const struct spec *s = &w->spec;
    for (int l = 0, done = 0; l < s->n_layers; l++) {
        const struct attention_spec *attention = &s->layers[l].attention;
        int rope = attention->rope;
        if (done >> rope & 1) continue;
        done |= 1 << rope;
        TRY(op_rope_table(&w->device, a->cos[rope], a->sin[rope], r->positions, inv_freq_of(w, rope), NULL,
                          s->ropes[rope].scale, r->N, attention->head_dim));
    }
    return OK;
}

static real *next_stream(const struct activations *a, int l) {
    return l + 1 < a->weights->spec.n_layers ? a->stash.layers[l + 1].attention.x : a->stash.out;
}

static int check_rows(const struct activations *a, int N) {
    return N <= a->rows_max ? OK : fail(E_CONFIG, "a batch of %d rows, planned for %d", N, a->rows_max);
}

int text_forward(struct activations *a, const struct rows *r, const struct stash_rows *copy) {
    const struct weights *w = a->weights;
    const struct spec *s = &w->spec;
    TRY(check_rows(a, r->N));
    TRY(op_embed(&w->device, a->stash.layers[0].attention.x, values_of(w, -1, P_embed), r->ids, s->embed_scale, r->N,
                 s->d_model, s->vocab_size));
    TRY(turn_ropes(a, r));
    for (int l = 0; l < s->n_layers; l++) {
        TRY(attention_forward(a, l, r, copy));
        TRY(mlp_forward(a, l, r->N, next_stream(a, l), copy));
        TRY(poll_interrupt());
    }
    return copy ? op_put_rows(&w->device, copy->stashes->out, a->stash.out, copy->rows, r->N, s->d_model) : OK;
}

int text_load(struct activations *a, const struct rows *r, const struct stash_rows *from) {
    const struct weights *w = a->weights;
    const struct spec *s = &w->spec;
    assert(a->stash.what == STASH_INPUTS || from->stashes->what == STASH_ALL);
    TRY(check_rows(a, r->N));
    for (int l = 0; l < s->n_layers; l++) {
        TRY(attention_load(a, l, r->N, from));
        TRY(mlp_load(a, l, r->N, from));
    }
    TRY(op_gather_rows(&w->device, a->stash.out, from->stashes->out, from->rows, r->N, s->d_model));
    return turn_ropes(a, r);
}

int text_pick(struct activations *a, const int32_t *rows, int n) {
    const struct weights *w = a->weights;
    if (n > a->head_rows_max) return fail(E_CONFIG, "%d rows for the head, planned for %d", n, a->head_rows_max);
    TRY(op_gather_rows(&w->device, a->picked, a->stash.out, rows, n, w->spec.d_model));
    return norm(w, -1, P_norm, a->hidden, a->picked_rstd, a->picked, n);
}

int text_decode(struct activations *a, const struct rows *r, const struct stash_rows *copy) {
    assert(r->keys && r->N <= a->head_rows_max);
    TRY(text_forward(a, r, copy));
    return norm(a->weights, -1, P_norm, a->hidden, a->picked_rstd, a->stash.out, r->N);
}

/* -- head ---------------------------------------------------------------------------------------------------------- */

static enum slot head_slot(const struct weights *w) { return w->spec.tie ? P_embed : P_head; }

int inverse_temperature(float *out, float temperature) {
    *out = temperature > 0 && isfinite(temperature) ? 1.0f / temperature : 0;
    return *out > 0 && isfinite(*out)
               ? OK
               : fail(E_CONFIG, "temperature is %g, must be positive, and finite as its inverse", (double)temperature);
}

int text_head(struct activations *a, const struct targets *t, float inv_temperature) {
    const struct weights *w = a->weights;
    struct head_rows rows = {.R = t->R, .h = a->hidden, .target = t->ids, .logp = t->logp, .entropy = t->entropy};
    return op_head(&w->device, NULL, &rows, values_of(w, -1, head_slot(w)), inv_temperature, w->spec.d_model,
                   w->spec.vocab_size);
}

int text_logits(struct activations *a, float *z, int n) {
    const struct weights *w = a->weights;
    return op_logits(&w->device, z, a->hidden, values_of(w, -1, head_slot(w)), n, w->spec.d_model, w->spec.vocab_size);
}

int text_sample(struct activations *a, const struct drawing *d, int n) {
    const struct weights *w = a->weights;
    return op_sample(&w->device, d->drawn, d->next, d->seen, a->hidden, values_of(w, -1, head_slot(w)), d->sampler,
                     d->keys, n, w->spec.d_model, w->spec.vocab_size);
}

/* -- backward: dx is the gradient of the residual stream, = at the head, += at each norm --------------------------- */

static int backward_head(struct activations *a, const struct rows *r, const struct targets *t, float *grads,
                         float inv_temperature) {
    const struct weights *w = a->weights;
    int d = w->spec.d_model;
    size_t row = stream_bytes(w, 1);
    struct head_rows rows = {.R = t->R,
                             .h = a->hidden,
                             .target = t->ids,
                             .logp = t->logp,
                             .entropy = t->entropy,
                             .coef = t->coef,
                             .ecoef = t->ecoef,
                             .dh = a->dhidden};
    TRY(op_head(&w->device, gradient_of(w, grads, -1, head_slot(w)), &rows, values_of(w, -1, head_slot(w)),
                inv_temperature, d, w->spec.vocab_size));
    TRY(op_zero(&w->device, a->dpicked, (size_t)t->R * row));
    TRY(norm_backward_add(w, -1, P_norm, a->dpicked, grads, a->dhidden, a->picked, a->picked_rstd, t->R));
    TRY(op_zero(&w->device, a->dx, (size_t)r->N * row));
    return op_scatter_rows_add(&w->device, a->dx, a->dpicked, t->rows, t->R, d);
}

int text_backward(struct activations *a, const struct rows *r, const struct targets *t, float *grads,
                  float inv_temperature) {
    assert(a->stash.what != STASH_NOTHING && t->coef);
    TRY(backward_head(a, r, t, grads, inv_temperature));
    for (int l = a->weights->spec.n_layers - 1; l >= 0; l--) {
        if (a->stash.what == STASH_INPUTS) {
            TRY(attention_forward(a, l, r, NULL));
            TRY(mlp_forward(a, l, r->N, NULL, NULL));
        }
        TRY(mlp_backward(a, l, r->N, grads));
        TRY(poll_interrupt());
        TRY(attention_backward(a, l, r, grads));
        TRY(poll_interrupt());
    }
    return OK;
}

int text_embed_backward(const struct weights *w, float *grads, const real *dx, const int32_t *ids, int N) {
    const struct spec *s = &w->spec;
    return op_embed_dw(&w->device, gradient_of(w, grads, -1, P_embed), dx, ids, s->embed_scale, N, s->d_model,
                       s->vocab_size);
}
