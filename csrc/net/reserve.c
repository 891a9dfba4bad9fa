#include "net/reserve.h"

#include <stdlib.h>

#include "base/base.h"

/* Shapes of the matrices that project.h multiplies, each once */
struct shapes {
    struct weight_shape *list;
    int n;
};
static int add_shape(void *arg, const struct param *p) {
    struct shapes *s = arg;
    if (!p->C || p->slot == P_embed || p->slot == P_head || p->slot == P_position_table || p->slot == P_pool_query ||
        p->slot == P_pool_positions)
        return OK;
    for (int i = 0; i < s->n; i++)
        if (s->list[i].O == p->O && s->list[i].C == p->C) return OK;
    s->list[s->n++] = (struct weight_shape){p->O, p->C};
    return OK;
}

int reserve_for(const struct weights *w, struct op_limits need, int columns) {
    const struct spec *s = &w->spec;
    const struct attention_spec *pool = &s->vision.pool;       /* of no heads where there is no resampler */
    struct widths widest = spec_widths(s);
    widest.qkv = max_int(widest.qkv, qkv_width(pool));
    widest.heads = max_int(widest.heads, heads_width(pool));
    widest.n_heads = max_int(widest.n_heads, pool->heads);
    widest.n_kv_heads = max_int(widest.n_kv_heads, pool->kv_heads);
    widest.head_dim = max_int(widest.head_dim, pool->head_dim);
    struct shapes shapes = {.list = malloc((size_t)w->n_params * sizeof *shapes.list)};
    if (!shapes.list) return fail(E_MEMORY, "no memory for %d shapes", w->n_params);
    spec_visit(s, add_shape, &shapes, NULL);
    need.channels = max_int(max_int(columns, 2 * widest.mlp), max_int(widest.qkv, widest.heads));
    need.heads = widest.n_heads;
    need.kv_heads = widest.n_kv_heads;
    need.head_dim = widest.head_dim;
    need.vocab = s->vocab_size;
    need.n_weights = shapes.n;
    need.weights = shapes.list;
    int status = device_reserve(&w->device, &need);
    free(shapes.list);
    return status;
}
