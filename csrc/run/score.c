#include "run/score.h"

#include <stdlib.h>

#include "base/base.h"

int score(struct session *s, float *logp, float *entropy, const struct groups *g, float temperature, int token_budget) {
    const struct weights *w = s->weights;
    struct batch *b = &s->batch;
    struct micro_batch mb;
    float inv;
    int rows, head_rows;
    TRY(inverse_temperature(&inv, temperature));
    if (token_budget < 1) return fail(E_CONFIG, "token_budget is %d, must be positive", token_budget);
    TRY(groups_check(g, &w->spec));
    TRY(pictures_have(g, 0));
    batch_limits(&rows, &head_rows, g, token_budget);
    if (!rows) return OK;
    struct text_limits need = {.rows = rows,
                               .head_rows = head_rows,
                               .slots = 1,
                               .segments = g->prompts.n + g->completions.n,
                               .positions = groups_longest(g),
                               .vectors = min_int(all_image_tokens(g), rows)};
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
    struct batch *b = &s->batch;
    struct micro_batch mb;
    int prompt = 0, completion = 0;
    batch_next(&mb, &prompt, &completion, g, NULL, n);
    TRY(batch_pack(b, g, &mb));
    TRY(text_forward(&s->acts, &b->rows, NULL));
    int32_t *all = malloc((size_t)n * sizeof *all);
    if (!all) return fail(E_MEMORY, "no memory for %d rows", n);
    for (int i = 0; i < n; i++) all[i] = i;
    int status = device_upload(&b->weights->device, b->stored, all, (size_t)n * sizeof *all);
    free(all);
    TRY(status);
    TRY(text_pick(&s->acts, b->stored, n));
    return text_logits(&s->acts, z, n);
}

int score_logits(struct session *s, float *z, const struct ragged *prompt, const struct pictures *pictures) {
    const struct weights *w = s->weights;
    int64_t completion_offset[] = {0, 1};
    int32_t group = 0;
    int n = ragged_length(prompt, 0);
    struct groups g = {*prompt, {1, completion_offset, prompt->ids}, &group, pictures};
    if (n < 1) return fail(E_CONFIG, "no token ids to run");
    TRY(groups_check(&g, &w->spec));
    TRY(pictures_have(&g, 0));
    int rows = round_up(n, ROW_ALIGN);
    size_t bytes = (size_t)n * (size_t)w->spec.vocab_size * sizeof(float);
    TRY(session_reserve(s,
                        &(struct text_limits){.rows = rows,
                                              .head_rows = rows,
                                              .slots = n,
                                              .segments = 2,
                                              .positions = n,
                                              .vectors = all_image_tokens(&g)},
                        0, 0));
    float *device_z = device_alloc(&w->device, bytes);
    if (!device_z) return fail(E_MEMORY, "logits of %d tokens need %.2f GB", n, (double)bytes / 1e9);
    int status = logits_batch(s, device_z, &g, n);
    if (!status) status = device_download(&w->device, z, device_z, bytes);
    device_release(&w->device, device_z);
    return status;
}
