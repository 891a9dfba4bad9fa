/* The decoder of Qwen1.5/2/2.5/3, Llama and SmolLM2. block_forward is the model; block_backward is the same list read
   upwards. Training, prefill and decoding run this one block and differ in the attention call alone: that, with C1 of
   ops.def, is why a log-prob recorded while sampling equals the trainer's bit for bit. */
#include "model/text.h"
#include "ops/device.h"

#include <stdlib.h>

#define OP(name, ...) TRY(op_##name(&m->device, __VA_ARGS__))

static void *vector_of(const struct model *m, int layer, enum param_id id) {
    struct param *p = model_param(m, layer, id);
    return p ? p->w : NULL;
}
static float *grad_of(const struct model *m, float *grads, int layer, enum param_id id) {
    struct param *p = model_param(m, layer, id);
    return p ? grads + p->offset : NULL;
}
#define W(id) vector_of(m, l, P_##id)
#define DW(id) grad_of(m, grads, l, P_##id)

const weight *text_head_weight(const struct model *m) {
    return vector_of(m, -1, m->config.tie ? P_embed : P_head);
}

/* -- memory -------------------------------------------------------------------------------------------------- */

static void take_stash(struct layout *s, struct stash *t, const struct config *c, size_t real_size, size_t rows) {
    size_t d = (size_t)c->d_model;
    t->x2 = layout_take(s, rows * d, real_size);
    t->rstd1 = layout_take(s, rows, sizeof(float));
    t->rstd2 = layout_take(s, rows, sizeof(float));
    t->qkv = layout_take(s, rows * (size_t)config_qkv(c), real_size);
    t->att = layout_take(s, rows * (size_t)config_heads(c), real_size);
    t->lse = layout_take(s, rows * (size_t)c->n_heads, sizeof(float));
    t->gate_up = layout_take(s, rows * 2 * (size_t)c->d_ff, real_size);
}

static size_t lay_out(struct activations *a, char *base, const struct ops *ops, const struct config *c) {
    struct layout s = {base, 0};
    size_t z = (size_t)ops->real_size, rows = (size_t)a->rows_max, head = (size_t)a->head_rows_max, d = (size_t)c->d_model;
    struct stash shared = {0};
    int every_layer = a->keep == KEEP_ALL || a->keep == KEEP_ROWS, store = a->keep == KEEP_ROWS || a->keep == KEEP_ROW_INPUTS;
    if (!every_layer && !store) take_stash(&s, &shared, c, z, rows);
    a->out = layout_take(&s, rows * d, z);
    for (int l = 0; l < c->n_layers; l++) {
        struct stash own = shared;
        if (every_layer) take_stash(&s, &own, c, z, rows);
        if (a->keep == KEEP_NONE) own.x = own.x2 = a->out;      /* the residual stream is updated in place */
        else own.x = layout_take(&s, rows * d, z);
        if (a->layers) a->layers[l] = own;
    }
    if (store) return s.at;
    a->normed = layout_take(&s, rows * d, z);
    a->rotated = layout_take(&s, rows * (size_t)config_qkv(c), z);
    a->act = layout_take(&s, rows * (size_t)c->d_ff, z);
    a->cos = layout_take(&s, rows * (size_t)c->head_dim / 2, sizeof(float));
    a->sin = layout_take(&s, rows * (size_t)c->head_dim / 2, sizeof(float));
    a->picked = layout_take(&s, head * d, z);
    a->hidden = layout_take(&s, head * d, z);
    a->rstd = layout_take(&s, head, sizeof(float));
    if (a->keep != KEEP_NONE) {
        a->dx = layout_take(&s, rows * d, z);
        a->dnormed = layout_take(&s, rows * d, z);
        a->datt = layout_take(&s, rows * (size_t)config_heads(c), z);
        a->dqkv = layout_take(&s, rows * (size_t)config_qkv(c), z);
        a->dhidden = layout_take(&s, head * d, z);
        a->dpicked = layout_take(&s, head * d, z);
    }
    return s.at;
}

size_t activations_bytes(const struct ops *ops, const struct config *c, enum keep keep, int rows, int head_rows) {
    struct activations a = {.keep = keep, .rows_max = rows, .head_rows_max = head_rows};
    return lay_out(&a, NULL, ops, c);
}

int activations_create(struct activations *a, struct model *m, enum keep keep, int rows, int head_rows) {
    const struct config *c = &m->config;
    *a = (struct activations){.m = m, .keep = keep, .rows_max = rows, .head_rows_max = head_rows};
    a->bytes = lay_out(a, NULL, m->device.ops, c);
    a->layers = calloc((size_t)c->n_layers, sizeof *a->layers);
    return a->layers ? OK : fail(E_MEMORY, "no memory for %d layers", c->n_layers);
}

void activations_place(struct activations *a, void *arena) { lay_out(a, arena, a->m->device.ops, &a->m->config); }

void activations_free(struct activations *a) {
    free(a->layers);
    *a = (struct activations){0};
}

size_t kv_bytes(const struct ops *ops, const struct config *c, int n_pages) {
    return (size_t)c->n_layers * (size_t)n_pages * ops->kv_page_bytes(c->n_kv_heads, c->head_dim);
}

int kv_place(struct kv *kv, struct model *m, int n_pages, void *arena) {
    const struct config *c = &m->config;
    *kv = (struct kv){.m = m, .n_pages = n_pages, .arena = arena, .page_bytes = m->device.ops->kv_page_bytes(c->n_kv_heads, c->head_dim)};
    kv->layer_bytes = kv->page_bytes * (size_t)n_pages;
    return op_zero(&m->device, arena, kv_bytes(m->device.ops, c, n_pages));      /* places never stored hold finite numbers */
}

static void *kv_layer(const struct kv *kv, int l) { return (char *)kv->arena + (size_t)l * kv->layer_bytes; }

int kv_copy_pages(struct kv *kv, const int32_t *dst, const int32_t *src, int n) {
    struct model *m = kv->m;
    struct attention_shape shape = config_attention(&m->config);
    for (int l = 0; l < m->config.n_layers; l++) OP(kv_copy, kv_layer(kv, l), dst, src, n, &shape);
    return OK;
}

/* -- forward ------------------------------------------------------------------------------------------------- */

/* What attention sees: the packed batch itself, or (decode) the pages of each slot. And who keeps a copy. */
struct view {
    const struct segment *segments;
    int n_segments;
    struct kv *kv;
    const int32_t *place;
    struct key_pages keys;
    const struct keeper *keeper;
};

enum { INPUT = 1, FIELDS = 6 };          /* of a stash; x, the layer's input, is the first */

/* Fields [first, last) of layer l's stash to the keeper's store, or from it. rstd is not kept: the backward computes it again. */
static int move_stash(struct activations *a, int l, const struct keeper *k, int to_store, int first, int last, int N) {
    struct model *m = a->m;
    const struct config *c = &m->config;
    struct stash *s = &a->layers[l], *t = &k->store->layers[l];
    const struct { void *here, *there; int C; } fields[FIELDS] = {
        {s->x, t->x, c->d_model}, {s->x2, t->x2, c->d_model}, {s->qkv, t->qkv, config_qkv(c)}, {s->att, t->att, config_heads(c)},
        {s->lse, t->lse, c->n_heads * (int)sizeof(float) / m->device.ops->real_size}, {s->gate_up, t->gate_up, 2 * c->d_ff},
    };
    for (int i = first; i < last; i++) {
        if (to_store) OP(put_rows, fields[i].there, fields[i].here, k->rows, N, fields[i].C);
        else OP(gather_rows, fields[i].here, fields[i].there, k->rows, N, fields[i].C);
    }
    return OK;
}

static int block_forward(struct activations *a, int l, const struct view *v, real *next, int N) {
    struct model *m = a->m;
    const struct config *c = &m->config;
    struct stash *s = &a->layers[l];
    int d = c->d_model, F = c->d_ff, QKV = config_qkv(c), Y = config_heads(c);
    struct attention_shape shape = config_attention(c);
    struct head_norm norm = {W(q_norm), W(k_norm), 0, c->rms_eps}, *qk = norm.wq ? &norm : NULL;
    size_t stream = (size_t)N * (size_t)d * (size_t)m->device.ops->real_size;
    if (v->keeper) TRY(move_stash(a, l, v->keeper, 1, 0, INPUT, N));
    OP(rmsnorm, a->normed, s->rstd1, s->x, W(norm1), 0, c->rms_eps, N, d);
    OP(linear, s->qkv, a->normed, W(qkv), W(qkv_b), N, d, QKV);
    OP(rope, a->rotated, s->qkv, qk, a->cos, a->sin, N, &shape);
    if (v->kv) OP(kv_store, kv_layer(v->kv, l), a->rotated, v->place, N, &shape);
    if (v->keys.pages) OP(attention_decode, s->att, s->lse, a->rotated, kv_layer(v->kv, l), &v->keys, N, &shape);
    else OP(attention, s->att, s->lse, a->rotated, v->segments, v->n_segments, N, &shape);
    if (s->x2 != s->x) OP(copy, s->x2, s->x, stream);
    OP(linear_add, s->x2, s->att, W(o), NULL, N, Y, d);
    OP(rmsnorm, a->normed, s->rstd2, s->x2, W(norm2), 0, c->rms_eps, N, d);
    OP(linear, s->gate_up, a->normed, W(gate_up), NULL, N, d, 2 * F);
    if (v->keeper && v->keeper->store->keep == KEEP_ROWS) TRY(move_stash(a, l, v->keeper, 1, INPUT, FIELDS, N));
    if (!next) return OK;            /* recompute: the backward starts from gate_up */
    OP(glu, a->act, s->gate_up, GLU_SILU, N, F);
    if (next != s->x2) OP(copy, next, s->x2, stream);
    OP(linear_add, next, a->act, W(down), NULL, N, F, d);
    return poll_interrupt();
}

static real *next_stream(struct activations *a, int l) {
    return l + 1 < a->m->config.n_layers ? a->layers[l + 1].x : a->out;
}

static int run_layers(struct activations *a, const struct view *v, const int32_t *ids, const int32_t *pos, int N) {
    struct model *m = a->m;
    const struct config *c = &m->config;
    if (N > a->rows_max) return fail(E_CONFIG, "a batch of %d rows, planned for %d", N, a->rows_max);
    OP(embed, a->layers[0].x, vector_of(m, -1, P_embed), ids, 1, N, c->d_model, c->vocab_size);
    OP(rope_table, a->cos, a->sin, pos, m->inv_freq, NULL, 1, N, c->head_dim);
    for (int l = 0; l < c->n_layers; l++) TRY(block_forward(a, l, v, next_stream(a, l), N));
    if (v->keeper) OP(put_rows, v->keeper->store->out, a->out, v->keeper->rows, N, c->d_model);
    return OK;
}

int text_pick(struct activations *a, const int32_t *rows, int n) {
    struct model *m = a->m;
    const struct config *c = &m->config;
    if (n > a->head_rows_max) return fail(E_CONFIG, "%d rows for the head, planned for %d", n, a->head_rows_max);
    OP(gather_rows, a->picked, a->out, rows, n, c->d_model);
    OP(rmsnorm, a->hidden, a->rstd, a->picked, vector_of(m, -1, P_norm), 0, c->rms_eps, n, c->d_model);
    return OK;
}

int text_forward(struct activations *a, const struct batch *b, struct kv *kv, const int32_t *place, const struct keeper *keeper) {
    struct view v = {.segments = b->segments, .n_segments = b->n_segments, .kv = kv, .place = place, .keeper = keeper};
    TRY(run_layers(a, &v, b->ids, b->pos, b->N));
    return b->R ? text_pick(a, b->rows, b->R) : OK;
}

int text_recall(struct activations *a, const struct batch *b, const struct keeper *keeper) {
    struct model *m = a->m;
    const struct config *c = &m->config;
    if (b->N > a->rows_max) return fail(E_CONFIG, "a batch of %d rows, planned for %d", b->N, a->rows_max);
    for (int l = 0; l < c->n_layers; l++) TRY(move_stash(a, l, keeper, 0, 0, a->keep == KEEP_ALL ? FIELDS : INPUT, b->N));
    OP(gather_rows, a->out, keeper->store->out, keeper->rows, b->N, c->d_model);
    OP(rope_table, a->cos, a->sin, b->pos, m->inv_freq, NULL, 1, b->N, c->head_dim);
    return b->R ? text_pick(a, b->rows, b->R) : OK;
}

int text_head(struct activations *a, const struct batch *b, float inv_temperature) {
    struct model *m = a->m;
    struct head_rows rows = {.R = b->R, .h = a->hidden, .target = b->targets, .logp = b->logp, .entropy = b->entropy};
    OP(head, NULL, &rows, text_head_weight(m), inv_temperature, m->config.d_model, m->config.vocab_size);
    return OK;
}

int text_decode(struct activations *a, struct kv *kv, const int32_t *ids, const int32_t *pos, const int32_t *place,
                const int32_t *pages, const int32_t *length, int S, int max_pages, int shared_pages, const struct keeper *keeper) {
    struct model *m = a->m;
    struct view v = {.kv = kv, .place = place, .keys = {pages, length, max_pages, shared_pages}, .keeper = keeper};
    TRY(run_layers(a, &v, ids, pos, S));
    OP(rmsnorm, a->hidden, a->rstd, a->out, vector_of(m, -1, P_norm), 0, m->config.rms_eps, S, m->config.d_model);
    return OK;
}

/* -- backward: dx is the gradient of the residual stream, = at the head, += at each norm ------------------------ */

static int block_backward(struct activations *a, float *grads, int l, const struct batch *b) {
    struct model *m = a->m;
    const struct config *c = &m->config;
    struct stash *s = &a->layers[l];
    int N = b->N, d = c->d_model, F = c->d_ff, QKV = config_qkv(c), Y = config_heads(c);
    struct attention_shape shape = config_attention(c);
    struct head_norm norm = {W(q_norm), W(k_norm), 0, c->rms_eps}, *qk = norm.wq ? &norm : NULL;
    OP(glu, a->act, s->gate_up, GLU_SILU, N, F);
    OP(linear_dw, DW(down), NULL, a->dx, a->act, N, F, d);
    OP(linear_dx, a->act, a->dx, W(down), N, F, d);                  /* from here on act and gate_up hold their gradients */
    OP(glu_bwd, s->gate_up, a->act, s->gate_up, GLU_SILU, N, F);
    OP(rmsnorm, a->normed, s->rstd2, s->x2, W(norm2), 0, c->rms_eps, N, d);
    OP(linear_dw, DW(gate_up), NULL, s->gate_up, a->normed, N, d, 2 * F);
    OP(linear_dx, a->dnormed, s->gate_up, W(gate_up), N, d, 2 * F);
    OP(rmsnorm_bwd_add, a->dx, DW(norm2), a->dnormed, s->x2, W(norm2), 0, s->rstd2, N, d);
    TRY(poll_interrupt());
    OP(linear_dw, DW(o), NULL, a->dx, s->att, N, Y, d);
    OP(linear_dx, a->datt, a->dx, W(o), N, Y, d);
    OP(rope, a->rotated, s->qkv, qk, a->cos, a->sin, N, &shape);
    OP(attention_bwd, a->dqkv, a->datt, s->att, s->lse, a->rotated, b->segments, b->n_segments, N, &shape);
    OP(rope_bwd, a->dqkv, DW(q_norm), DW(k_norm), s->qkv, qk, a->cos, a->sin, N, &shape);
    OP(rmsnorm, a->normed, s->rstd1, s->x, W(norm1), 0, c->rms_eps, N, d);
    OP(linear_dw, DW(qkv), DW(qkv_b), a->dqkv, a->normed, N, d, QKV);
    OP(linear_dx, a->dnormed, a->dqkv, W(qkv), N, d, QKV);
    OP(rmsnorm_bwd_add, a->dx, DW(norm1), a->dnormed, s->x, W(norm1), 0, s->rstd1, N, d);
    return poll_interrupt();
}

int text_backward(struct activations *a, const struct batch *b, float *grads, float inv_temperature, int has_ecoef) {
    struct model *m = a->m;
    const struct config *c = &m->config;
    int d = c->d_model;
    struct view v = {.segments = b->segments, .n_segments = b->n_segments};
    struct head_rows rows = {.R = b->R, .h = a->hidden, .target = b->targets, .logp = b->logp, .entropy = b->entropy,
                             .coef = b->coef, .ecoef = has_ecoef ? b->ecoef : NULL, .dh = a->dhidden};
    OP(head, grad_of(m, grads, -1, c->tie ? P_embed : P_head), &rows, text_head_weight(m), inv_temperature, d, c->vocab_size);
    OP(zero, a->dpicked, (size_t)b->R * (size_t)d * (size_t)m->device.ops->real_size);
    OP(rmsnorm_bwd_add, a->dpicked, grad_of(m, grads, -1, P_norm), a->dhidden, a->picked, vector_of(m, -1, P_norm), 0, a->rstd, b->R, d);
    OP(zero, a->dx, (size_t)b->N * (size_t)d * (size_t)m->device.ops->real_size);
    OP(scatter_rows_add, a->dx, a->dpicked, b->rows, b->R, d);
    for (int l = c->n_layers - 1; l >= 0; l--) {
        if (a->keep == KEEP_INPUTS) TRY(block_forward(a, l, &v, NULL, b->N));
        TRY(block_backward(a, grads, l, b));
    }
    return OK;
}

int text_embed_backward(struct model *m, float *grads, const real *dx, const int32_t *ids, int N) {
    OP(embed_dw, grad_of(m, grads, -1, P_embed), dx, ids, 1, N, m->config.d_model, m->config.vocab_size);
    return OK;
}
