#include "net/attention.h"

#include "base/base.h"
#include "net/norms.h"
#include "net/project.h"

enum { FIELDS = 5 };                     /* of a stash; x is the first */

static int fields_of(struct stash_field fields[FIELDS], const struct activations *a, int l,
                     const struct stashes *store) {
    const struct attention_stash *here = &a->stash.layers[l].attention, *there = &store->layers[l].attention;
    const struct spec *s = &a->weights->spec;
    struct widths w = layer_widths(s, l);
    int n = 0;
    fields[n++] = (struct stash_field){here->x, there->x, w.model};
    if (store->what == STASH_INPUTS) return n;
    fields[n++] = (struct stash_field){here->qkv, there->qkv, w.qkv};
    fields[n++] = (struct stash_field){here->heads, there->heads, w.heads};
    fields[n++] = (struct stash_field){here->lse, there->lse, float_columns(&a->weights->device, w.n_heads)};
    if (w.post_norms) fields[n++] = (struct stash_field){here->result, there->result, w.model};
    return n;
}

/* The per-head norms of q and k, or NULL */
static const struct head_norm *head_norm_of(struct head_norm *norm, const struct weights *w, int l) {
    if (!w->spec.layers[l].attention.qk_norm) return NULL;
    *norm = (struct head_norm){values_of(w, l, P_q_norm), values_of(w, l, P_k_norm), w->spec.norm_offset, w->spec.eps};
    return norm;
}

static int rotate(struct activations *a, int l, int N) {
    const struct weights *w = a->weights;
    const struct attention_spec *spec = &w->spec.layers[l].attention;
    struct attention_shape shape = shape_of_attention(spec);
    struct head_norm norm;
    return op_rope(&w->device, a->rotated, a->stash.layers[l].attention.qkv, head_norm_of(&norm, w, l),
                   a->cos[spec->rope], a->sin[spec->rope], a->q_scale, N, &shape);
}

/* The segments of a layer's rows */
static const struct segment *segments_of(const struct rows *r, const struct attention_spec *spec, int *n) {
    *n = spec->by_window ? r->n_windows : r->n_segments;
    return spec->by_window ? r->windows : r->segments;
}

/* Scores and weighted values of rotated rows, which see their batch or the cache */
static int attend(struct activations *a, int l, const struct rows *r) {
    const struct weights *w = a->weights;
    struct attention_shape shape = shape_of_attention(&w->spec.layers[l].attention);
    struct attention_stash *s = &a->stash.layers[l].attention;
    int n;
    const struct segment *segments = segments_of(r, &w->spec.layers[l].attention, &n);
    if (r->cache) TRY(op_kv_store(&w->device, cache_layer(r->cache, l), a->rotated, r->place, r->N, &shape));
    return r->keys ? op_attention_decode(&w->device, s->heads, s->lse, a->rotated, cache_layer(r->cache, l), r->keys,
                                         r->N, &shape)
                   : op_attention(&w->device, s->heads, s->lse, a->rotated, segments, n, r->N, &shape);
}

int attention_forward(struct activations *a, int l, const struct rows *r, const struct stash_rows *copy) {
    const struct weights *w = a->weights;
    struct attention_stash *s = &a->stash.layers[l].attention;
    real *stream = a->stash.layers[l].mlp.x;
    struct stash_field fields[FIELDS];
    int N = r->N, n_fields = copy ? fields_of(fields, a, l, copy->stashes) : 0;
    /* the input first: the residual stream may be updated in place */
    if (copy) TRY(stash_save(&w->device, fields, 1, copy->rows, N));
    TRY(norm(w, l, P_attention_norm, a->normed, a->stats, s->x, N));
    TRY(project(w, l, P_qkv, s->qkv, a->normed, N));
    TRY(rotate(a, l, N));
    TRY(attend(a, l, r));
    if (stream != s->x) TRY(op_copy(&w->device, stream, s->x, stream_bytes(w, N)));
    if (w->spec.layers[l].post_norms) {
        TRY(project(w, l, P_o, s->result, s->heads, N));
        TRY(norm_add(w, l, P_attention_post_norm, stream, a->stats, s->result, N));
    } else TRY(project_add(w, l, P_o, stream, s->heads, N));
    return n_fields > 1 ? stash_save(&w->device, fields + 1, n_fields - 1, copy->rows, N) : OK;
}

int attention_look(struct activations *a, int l, const struct rows *r, const int32_t *index, int R, int N, float *p) {
    const struct weights *w = a->weights;
    const struct attention_spec *spec = &w->spec.layers[l].attention;
    struct attention_shape shape = shape_of_attention(spec);
    int n;
    const struct segment *segments = segments_of(r, spec, &n);
    return op_attention_weights(&w->device, p, a->stash.layers[l].attention.lse, a->rotated, index, segments, n, R, N,
                                &shape);
}

int attention_load(struct activations *a, int l, int N, const struct stash_rows *from) {
    struct stash_field fields[FIELDS];
    int n = fields_of(fields, a, l, from->stashes);
    return stash_load(&a->weights->device, fields, a->stash.what == STASH_INPUTS ? 1 : n, from->rows, N);
}

int attention_backward(struct activations *a, int l, const struct rows *r, const struct gradients *grads) {
    const struct weights *w = a->weights;
    const struct attention_spec *spec = &w->spec.layers[l].attention;
    struct attention_shape shape = shape_of_attention(spec);
    struct attention_stash *s = &a->stash.layers[l].attention;
    struct head_norm norms;
    int n_segments, N = r->N, post = w->spec.layers[l].post_norms;
    const struct segment *segments = segments_of(r, spec, &n_segments);
    real *dresult = post ? a->dresult : a->dx;
    if (post) TRY(norm_backward(w, l, P_attention_post_norm, dresult, grads, a->dx, s->result, a->normed, a->stats, N));
    TRY(project_dw(w, l, P_o, grads, dresult, s->heads, N));
    TRY(project_dx(w, l, P_o, a->dheads, dresult, N));
    TRY(rotate(a, l, N));
    TRY(op_attention_bwd(&w->device, a->dqkv, a->dheads, s->heads, s->lse, a->rotated, segments, n_segments, N,
                         &shape));
    TRY(op_rope_bwd(&w->device, a->dqkv, gradient_of(w, grads, l, P_q_norm), gradient_of(w, grads, l, P_k_norm), s->qkv,
                    head_norm_of(&norms, w, l), a->cos[spec->rope], a->sin[spec->rope], a->q_scale, N, &shape));
    TRY(norm(w, l, P_attention_norm, a->normed, a->stats, s->x, N));
    TRY(project_dw(w, l, P_qkv, grads, a->dqkv, a->normed, N));
    TRY(project_dx(w, l, P_qkv, a->dnormed, a->dqkv, N));
    return norm_backward_add(w, l, P_attention_norm, a->dx, grads, a->dnormed, s->x, a->stats, N);
}
