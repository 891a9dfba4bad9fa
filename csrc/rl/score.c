#include "rl/score.h"

#include <math.h>

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

int score(struct inference *r, float *logp, float *entropy, const struct groups *g, float temperature, int token_budget) {
    struct model *m = r->m;
    struct micro_batch mb;
    float inv;
    int rows, head_rows, segments = g->prompts.n + g->completions.n;
    TRY(inverse_temperature(&inv, temperature));
    if (token_budget < 1) return fail(E_CONFIG, "token_budget is %d, must be positive", token_budget);
    TRY(groups_check(g, m->config.vocab_size));
    batch_limits(&rows, &head_rows, g, token_budget);
    TRY(reserve_scratch(m, rows, head_rows, 1, segments, max_position(g), 0));
    TRY(inference_reserve(r, rows, head_rows, segments, 0, 0));
    for (int prompt = 0, completion = 0; batch_next(&mb, &prompt, &completion, g, NULL, token_budget);) {
        TRY(batch_pack(&r->batch, m, g, &mb));
        TRY(text_forward(&r->acts, &r->batch, NULL, NULL, NULL));
        TRY(text_head(&r->acts, &r->batch, inv));
        TRY(batch_get(m, logp, r->batch.logp, g, &mb));
        TRY(batch_get(m, entropy, r->batch.entropy, g, &mb));
    }
    return OK;
}

/* The rows of one prompt; every one of them is picked, where training picks those that predict a completion token. */
static int logits_batch(struct inference *r, float *z_device, const struct groups *g, int n) {
    struct model *m = r->m;
    struct micro_batch mb;
    int prompt = 0, completion = 0;
    batch_next(&mb, &prompt, &completion, g, NULL, n);
    TRY(batch_pack(&r->batch, m, g, &mb));
    TRY(text_forward(&r->acts, &r->batch, NULL, NULL, NULL));
    TRY(text_pick(&r->acts, r->batch.pos, n));             /* positions 0..n-1 are the rows */
    return op_logits(&m->device, z_device, r->acts.hidden, text_head_weight(m), n, m->config.d_model, m->config.vocab_size);
}

int score_logits(struct inference *r, float *z, const int32_t *ids, int n) {
    struct model *m = r->m;
    int64_t prompt_offset[] = {0, n}, completion_offset[] = {0, 1};
    int32_t group = 0;
    struct groups g = {{1, prompt_offset, ids}, {1, completion_offset, ids}, &group};
    if (n < 1) return fail(E_CONFIG, "no token ids to run");
    TRY(groups_check(&g, m->config.vocab_size));
    int rows = round_up(n, ROW_ALIGN);
    size_t bytes = (size_t)n * (size_t)m->config.vocab_size * sizeof(float);
    TRY(reserve_scratch(m, rows, rows, n, 2, n, 0));
    TRY(inference_reserve(r, rows, rows, 2, 0, 0));
    float *z_device = device_alloc(&m->device, bytes);
    if (!z_device) return fail(E_MEMORY, "logits of %d tokens need %.2f GB", n, (double)bytes / 1e9);
    int status = logits_batch(r, z_device, &g, n);
    if (!status) status = device_download(&m->device, z, z_device, bytes);
    device_release(&m->device, z_device);
    return status;
}
