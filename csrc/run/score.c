#include "run/score.h"

#include "base/base.h"

static int longest_sequence(const struct groups *g) {
    int longest = 0;
    for (int i = 0; i < g->completions.n; i++)
        longest = max_int(longest, ragged_length(&g->prompts, g->group[i]) + ragged_length(&g->completions, i));
    return longest;
}

int score(struct session *s, float *logp, float *entropy, const struct groups *g, float temperature, int token_budget) {
    const struct weights *w = s->weights;
    struct batch *b = &s->batch;
    struct micro_batch mb;
    float inv;
    int rows, head_rows;
    TRY(inverse_temperature(&inv, temperature));
    if (token_budget < 1) return fail(E_CONFIG, "token_budget is %d, must be positive", token_budget);
    TRY(groups_check(g, w->spec.vocab_size));
    batch_limits(&rows, &head_rows, g, token_budget);
    if (!rows) return OK;
    struct text_limits need = {.rows = rows,
                               .head_rows = head_rows,
                               .slots = 1,
                               .segments = g->prompts.n + g->completions.n,
                               .positions = longest_sequence(g)};
    TRY(session_reserve(s, &need, 0, 0));
    for (int prompt = 0, completion = 0; batch_next(&mb, &prompt, &completion, g, NULL, token_budget);) {
        TRY(batch_pack(b, g, &mb));
        TRY(text_forward(&s->acts, &b->rows, NULL));
        TRY(text_pick(&s->acts, b->targets.rows, b->targets.R));
        TRY(text_head(&s->acts, &b->targets, inv));
        TRY(batch_get(&w->device, logp, b->logp, g, &mb));
        TRY(batch_get(&w->device, entropy, b->entropy, g, &mb));
    }
    return OK;
}

/* The rows of one prompt; every one of them is picked, where training picks those that predict a completion token. */
static int logits_batch(struct session *s, float *z, const struct groups *g, int n) {
    struct micro_batch mb;
    int prompt = 0, completion = 0;
    batch_next(&mb, &prompt, &completion, g, NULL, n);
    TRY(batch_pack(&s->batch, g, &mb));
    TRY(text_forward(&s->acts, &s->batch.rows, NULL));
    TRY(text_pick(&s->acts, s->batch.positions, n));       /* positions 0..n-1 are the rows */
    return text_logits(&s->acts, z, n);
}

int score_logits(struct session *s, float *z, const int32_t *ids, int n) {
    const struct weights *w = s->weights;
    int64_t prompt_offset[] = {0, n}, completion_offset[] = {0, 1};
    int32_t group = 0;
    struct groups g = {{1, prompt_offset, ids}, {1, completion_offset, ids}, &group};
    if (n < 1) return fail(E_CONFIG, "no token ids to run");
    TRY(groups_check(&g, w->spec.vocab_size));
    int rows = round_up(n, ROW_ALIGN);
    size_t bytes = (size_t)n * (size_t)w->spec.vocab_size * sizeof(float);
    TRY(session_reserve(
        s, &(struct text_limits){.rows = rows, .head_rows = rows, .slots = n, .segments = 2, .positions = n}, 0, 0));
    float *device_z = device_alloc(&w->device, bytes);
    if (!device_z) return fail(E_MEMORY, "logits of %d tokens need %.2f GB", n, (double)bytes / 1e9);
    int status = logits_batch(s, device_z, &g, n);
    if (!status) status = device_download(&w->device, z, device_z, bytes);
    device_release(&w->device, device_z);
    return status;
}
