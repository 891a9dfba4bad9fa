/* The decoder: what runs a layer is the layer's spec, read by its parts (attention.c, mlp.c). Training, prefill and
   decoding run the same parts and differ in what a row sees alone; that, with "rollout = training" of the op table,
   is why a log-prob recorded while sampling equals the trainer's bit for bit. */
#include "net/text.h"

#include <assert.h>
#include <math.h>

#include "base/base.h"
#include "net/attention.h"
#include "net/mlp.h"
#include "net/norms.h"
#include "net/reserve.h"

/* -- limits -------------------------------------------------------------------------------------------------------- */

int text_reserve(const struct weights *w, const struct text_limits *need) {
    const struct spec *s = &w->spec;
    if (s->max_positions && need->positions > s->max_positions)
        return fail(E_CONFIG,
                    "a sequence of %d tokens: this model is defined up to %d tokens, beyond which its rope, or the "
                    "scale of its scores, is another one",
                    need->positions, s->max_positions);
    struct op_limits limits = {.rows = need->rows,
                               .head_rows = need->head_rows,
                               .slots = need->slots,
                               .segments = need->segments,
                               .max_position = need->positions,
                               .shared_pages = need->shared_pages};
    return reserve_for(w, limits, s->d_model);
}

/* -- forward ------------------------------------------------------------------------------------------------------- */

static real *level_of(const struct vectors *v, int level, size_t row_bytes) {
    return (char *)v->values + (size_t)level * (size_t)v->n * row_bytes;
}

/* Vectors of level 0 in place of what was embedded, those of level l + 1 on top of what layer l made of the stream */
static int enter_vectors(const struct activations *a, const struct vectors *v, int level, real *stream) {
    const struct weights *w = a->weights;
    if (!v || level >= v->levels) return OK;
    const real *values = level_of(v, level, stream_bytes(w, 1));
    return level ? op_scatter_rows_add(&w->device, stream, values, v->rows, v->n, w->spec.d_model)
                 : op_put_rows(&w->device, stream, values, v->rows, v->n, w->spec.d_model);
}

static int enter_rows(struct activations *a, const struct rows *r) {
    const struct weights *w = a->weights;
    const struct spec *s = &w->spec;
    TRY(check_rows(a, r->N));
    real *first = a->stash.layers[0].attention.x;
    TRY(op_embed(&w->device, first, values_of(w, -1, P_embed), r->ids, s->embed_scale, r->N, s->d_model,
                 s->vocab_size));
    TRY(enter_vectors(a, r->vectors, 0, first));
    return turn_ropes(a, r);
}

/* What follows the attention of a layer */
static int end_layer(struct activations *a, int l, const struct rows *r, const struct stash_rows *copy) {
    TRY(mlp_forward(a, l, r->N, next_stream(a, l), copy));
    TRY(enter_vectors(a, r->vectors, l + 1, next_stream(a, l)));
    return poll_interrupt();
}

int text_forward(struct activations *a, const struct rows *r, const struct stash_rows *copy) {
    const struct weights *w = a->weights;
    const struct spec *s = &w->spec;
    TRY(enter_rows(a, r));
    for (int l = 0; l < s->n_layers; l++) {
        TRY(attention_forward(a, l, r, copy));
        TRY(end_layer(a, l, r, copy));
    }
    return copy ? op_put_rows(&w->device, copy->stashes->out, a->stash.out, copy->rows, r->N, s->d_model) : OK;
}

int text_look(struct activations *a, const struct rows *r, const struct look *look) {
    const struct weights *w = a->weights;
    float *weights = look->weights;
    TRY(enter_rows(a, r));
    for (int l = 0, next = 0; next < look->n_layers; l++) {
        TRY(attention_forward(a, l, r, NULL));
        if (look->layers[next] == l) {
            size_t n = (size_t)look->R * (size_t)w->spec.layers[l].attention.heads * (size_t)look->keys;
            TRY(attention_look(a, l, r, look->rows, look->R, look->keys, look->p));
            TRY(device_download(&w->device, weights, look->p, n * sizeof *weights));
            weights += n;
            next++;
        }
        TRY(end_layer(a, l, r, NULL));
    }
    return OK;
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
    return norm(w, -1, P_norm, a->hidden, a->picked_stats, a->picked, n);
}

int text_decode(struct activations *a, const struct rows *r, const struct stash_rows *copy) {
    assert(r->keys && r->N <= a->head_rows_max);
    TRY(text_forward(a, r, copy));
    return norm(a->weights, -1, P_norm, a->hidden, a->picked_stats, a->stash.out, r->N);
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

static int backward_head(struct activations *a, const struct rows *r, const struct targets *t,
                         const struct gradients *grads, float inv_temperature) {
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
    TRY(norm_backward_add(w, -1, P_norm, a->dpicked, grads, a->dhidden, a->picked, a->picked_stats, t->R));
    TRY(op_zero(&w->device, a->dx, (size_t)r->N * row));
    return op_scatter_rows_add(&w->device, a->dx, a->dpicked, t->rows, t->R, d);
}

/* The gradients of vectors take the place of their values; those of level 0 are no token's */
static int leave_vectors(struct activations *a, const struct vectors *v, int level) {
    const struct weights *w = a->weights;
    if (!v || !v->differentiate || level >= v->levels) return OK;
    real *values = level_of(v, level, stream_bytes(w, 1));
    return op_gather_rows(&w->device, values, a->dx, v->rows, v->n, w->spec.d_model);
}

/* No token entered at rows of vectors: their part of dx is 0 for the embedding */
static int drop_vectors(struct activations *a, const struct vectors *v) {
    const struct weights *w = a->weights;
    if (!v) return OK;
    TRY(op_zero(&w->device, a->dnormed, stream_bytes(w, v->n)));
    return op_put_rows(&w->device, a->dx, a->dnormed, v->rows, v->n, w->spec.d_model);
}

int text_backward(struct activations *a, const struct rows *r, const struct targets *t, const struct gradients *grads,
                  float inv_temperature) {
    assert(a->stash.what != STASH_NOTHING && t->coef);
    TRY(backward_head(a, r, t, grads, inv_temperature));
    for (int l = a->weights->spec.n_layers - 1; l >= 0; l--) {
        TRY(leave_vectors(a, r->vectors, l + 1));
        if (a->stash.what == STASH_INPUTS) {
            TRY(attention_forward(a, l, r, NULL));
            TRY(mlp_forward(a, l, r->N, NULL, NULL));
        }
        TRY(mlp_backward(a, l, r->N, grads));
        TRY(poll_interrupt());
        TRY(attention_backward(a, l, r, grads));
        TRY(poll_interrupt());
    }
    TRY(leave_vectors(a, r->vectors, 0));
    return drop_vectors(a, r->vectors);
}

int text_embed_backward(const struct weights *w, const struct gradients *grads, const real *dx, const int32_t *ids,
                        int N) {
    const struct spec *s = &w->spec;
    return op_embed_dw(&w->device, gradient_of(w, grads, -1, P_embed), dx, ids, s->embed_scale, N, s->d_model,
                       s->vocab_size);
}
