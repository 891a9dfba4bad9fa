#include "rl/score.h"

#include <math.h>

int reserve_scratch(struct model *m, int rows, int head_rows, int slots, int segments, int max_position) {
    const struct config *c = &m->config;
    struct op_limits need = {
        .rows = rows, .head_rows = head_rows, .slots = slots,
        .channels = max_int(max_int(c->d_model, 2 * c->d_ff), max_int(config_qkv(c), config_heads(c))),
        .heads = c->n_heads, .kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .vocab = c->vocab_size,
        .segments = segments, .max_position = max_position,
    };
    return m->ops->reserve(m->ctx, &need);
}

int inverse_temperature(float *out, float temperature) {
    *out = temperature > 0 && !isinf(temperature) ? 1.0f / temperature : 0;
    return *out > 0 ? OK : fail(E_CONFIG, "temperature is %g, must be positive", (double)temperature);
}

static int max_position(const struct groups *g) {
    int longest = 0;
    for (int i = 0; i < g->completions.n; i++)
        longest = max_int(longest, ragged_length(&g->prompts, g->group[i]) + ragged_length(&g->completions, i));
    return longest;
}

static int score_batches(struct activations *a, struct batch *b, float *logp, float *entropy, const struct groups *g,
                         float inv_temperature, int token_budget) {
    struct micro_batch mb;
    for (int prompt = 0, completion = 0; batch_next(&mb, &prompt, &completion, g, NULL, token_budget);) {
        TRY(batch_pack(b, a->m, g, &mb));
        TRY(text_forward(a, b, NULL, NULL));
        TRY(text_head(a, b, inv_temperature));
        TRY(batch_get(a->m, logp, b->logp, g, &mb));
        TRY(batch_get(a->m, entropy, b->entropy, g, &mb));
    }
    return OK;
}

int score(struct model *m, float *logp, float *entropy, const struct groups *g, float temperature, int token_budget) {
    float inv;
    int rows, head_rows, segments = g->prompts.n + g->completions.n;
    TRY(inverse_temperature(&inv, temperature));
    TRY(groups_check(g, m->config.vocab_size));
    batch_limits(&rows, &head_rows, g, token_budget);
    if (!rows) return OK;
    TRY(reserve_scratch(m, rows, head_rows, 1, segments, max_position(g)));
    struct activations a = {0};
    struct batch b = {0};
    int status = activations_create(&a, m, KEEP_NONE, rows, head_rows);
    if (!status) status = batch_create(&b, m, rows, head_rows, segments);
    if (!status) status = score_batches(&a, &b, logp, entropy, g, inv, token_budget);
    batch_free(&b, m);
    activations_free(&a);
    return status;
}

/* The rows of one prompt; every one of them is picked, where training picks those that predict a completion token. */
static int logits_batch(struct activations *a, struct batch *b, float *z_device, const struct groups *g, int n) {
    struct model *m = a->m;
    struct micro_batch mb;
    int prompt = 0, completion = 0;
    batch_next(&mb, &prompt, &completion, g, NULL, n);
    TRY(batch_pack(b, m, g, &mb));
    TRY(text_forward(a, b, NULL, NULL));
    TRY(text_pick(a, b->pos, n));             /* positions 0..n-1 are the rows */
    return m->ops->logits(m->ctx, z_device, a->hidden, text_head_weight(m), n, m->config.d_model, m->config.vocab_size);
}

int score_logits(struct model *m, float *z, const int32_t *ids, int n) {
    int64_t prompt_offset[] = {0, n}, completion_offset[] = {0, 1};
    int32_t group = 0;
    struct groups g = {{1, prompt_offset, ids}, {1, completion_offset, ids}, &group};
    if (n < 1) return fail(E_CONFIG, "no token ids to run");
    TRY(groups_check(&g, m->config.vocab_size));
    int rows = round_up(n, ROW_ALIGN);
    size_t bytes = (size_t)n * (size_t)m->config.vocab_size * sizeof(float);
    TRY(reserve_scratch(m, rows, rows, n, 2, n));
    struct activations a = {0};
    struct batch b = {0};
    float *z_device = m->ops->alloc(m->ctx, bytes);
    int status = z_device ? OK : fail(E_MEMORY, "logits of %d tokens need %.2f GB", n, (double)bytes / 1e9);
    if (!status) status = activations_create(&a, m, KEEP_NONE, rows, rows);
    if (!status) status = batch_create(&b, m, rows, rows, 2);
    if (!status) status = logits_batch(&a, &b, z_device, &g, n);
    if (!status) status = m->ops->download(m->ctx, z, z_device, bytes);
    m->ops->release(m->ctx, z_device);
    batch_free(&b, m);
    activations_free(&a);
    return status;
}
