#include "rl/inference.h"

int reserve_scratch(struct model *m, int rows, int head_rows, int slots, int segments, int max_position, int shared_pages) {
    const struct config *c = &m->config;
    struct weight_shape weights[PARAM_IDS];            /* of a layer: all layers are alike */
    int n_weights = 0;
    for (int i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        if (p->layer == 0 && p->C) weights[n_weights++] = (struct weight_shape){p->O, p->C};
    }
    struct op_limits need = {
        .rows = rows, .head_rows = head_rows, .slots = slots,
        .channels = max_int(max_int(c->d_model, 2 * c->d_ff), max_int(config_qkv(c), config_heads(c))),
        .heads = c->n_heads, .kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .vocab = c->vocab_size,
        .segments = segments, .max_position = max_position, .shared_pages = shared_pages,
        .n_weights = n_weights, .weights = weights,
    };
    return device_reserve(&m->device, &need);
}

int inference_reserve(struct inference *r, int rows, int head_rows, int segments, int kv_pages, size_t more) {
    struct activations *a = &r->acts;
    struct batch *b = &r->batch;
    if (rows > a->rows_max || head_rows > a->head_rows_max) {
        int more_rows = max_int(rows, a->rows_max), more_head = max_int(head_rows, a->head_rows_max);
        activations_free(a);
        TRY(activations_create(a, r->m, KEEP_NONE, more_rows, more_head));
    }
    if (rows > b->rows_max || head_rows > b->head_rows_max || segments > b->segments_max) {
        int more_rows = max_int(rows, b->rows_max), more_head = max_int(head_rows, b->head_rows_max);
        segments = max_int(segments, b->segments_max);
        batch_free(b, r->m);
        TRY(batch_create(b, r->m, more_rows, more_head, segments));
    }
    size_t before = a->bytes + kv_bytes(r->m->device.ops, &r->m->config, kv_pages);
    void *arena;
    TRY(model_workspace(r->m, &arena, before + more));
    r->rest = (char *)arena + before;
    activations_place(a, arena);
    return kv_place(&r->kv, r->m, kv_pages, (char *)arena + a->bytes);
}

void inference_free(struct inference *r) {
    batch_free(&r->batch, r->m);
    activations_free(&r->acts);
}
