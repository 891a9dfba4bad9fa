#include "run/embed.h"

#include <stdlib.h>

#include "base/base.h"

/* Memory of one call, for micro-batches of up to `rows` rows. A text is packed as the prompt of a group whose one
   completion, a single token, takes no row. */
struct embedding {
    int64_t *offset;                 /* (n + 1) HOST, of the completions */
    int32_t *first, *group;          /* (n) HOST */
    float *rows;                     /* (rows, d) HOST */
    double *sum;                     /* (d) HOST */
    int32_t *index;                  /* (rows) 0, 1, 2 ... */
    float *hidden;                   /* (rows, d) */
};

static void embedding_free(struct embedding *e, const struct device *device) {
    free(e->offset);
    free(e->first);
    free(e->group);
    free(e->rows);
    free(e->sum);
    device_release(device, e->index);
    device_release(device, e->hidden);
}

static int groups_of_texts(struct embedding *e, struct groups *g, const struct ragged *texts, int vocab_size) {
    size_t n = (size_t)texts->n;
    e->offset = malloc((n + 1) * sizeof *e->offset);
    e->first = malloc((n + 1) * sizeof *e->first);
    e->group = malloc((n + 1) * sizeof *e->group);
    if (!e->offset || !e->first || !e->group) return fail(E_MEMORY, "no memory to embed %d texts", texts->n);
    for (int i = 0; i < texts->n; i++) {
        if (!ragged_length(texts, i)) return fail(E_CONFIG, "text %d has no tokens", i);
        for (int64_t t = texts->offset[i]; t < texts->offset[i + 1]; t++)
            if (texts->ids[t] < 0 || texts->ids[t] >= vocab_size)
                return fail(E_CONFIG, "text %d holds token id %d, but the vocabulary has %d words", i,
                            (int)texts->ids[t], vocab_size);
        e->offset[i] = e->group[i] = i;
        e->first[i] = texts->ids[texts->offset[i]];
    }
    e->offset[n] = texts->n;
    *g = (struct groups){*texts, {texts->n, e->offset, e->first}, e->group, NULL};
    return OK;
}

static int embedding_reserve(struct embedding *e, const struct weights *w, int rows) {
    size_t n = (size_t)rows, d = (size_t)w->spec.d_model;
    e->rows = malloc(n * d * sizeof *e->rows);
    e->sum = malloc(d * sizeof *e->sum);
    e->index = device_alloc(&w->device, n * sizeof *e->index);
    e->hidden = device_alloc(&w->device, n * d * sizeof *e->hidden);
    int32_t *numbers = malloc(n * sizeof *numbers);
    int status =
        e->rows && e->sum && e->index && e->hidden && numbers ? OK : fail(E_MEMORY, "no memory to embed %d rows", rows);
    for (int i = 0; !status && i < rows; i++) numbers[i] = i;
    if (!status) status = device_upload(&w->device, e->index, numbers, n * sizeof *numbers);
    free(numbers);
    return status;
}

static void mean_rows(float *out, double *sum, const float *rows, int n, int d) {
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < d; c++) sum[c] += (double)rows[(size_t)i * (size_t)d + (size_t)c];
    for (int c = 0; c < d; c++) out[c] = (float)(sum[c] / n);
}

static int embed_batch(struct session *s, float *out, struct embedding *e, const struct groups *g,
                       const struct micro_batch *mb) {
    const struct weights *w = s->weights;
    int d = w->spec.d_model;
    size_t n = (size_t)mb->rows * (size_t)d;
    TRY(batch_pack(&s->batch, g, mb));
    TRY(text_forward(&s->acts, &s->batch.rows, NULL));
    TRY(text_pick(&s->acts, e->index, mb->rows));
    TRY(op_uncast(&w->device, e->hidden, s->acts.hidden, n));
    TRY(device_download(&w->device, e->rows, e->hidden, n * sizeof *e->rows));
    for (int i = mb->prompt, row = 0; i < mb->prompt + mb->n_prompts; i++) {
        int length = ragged_length(&g->prompts, i);
        mean_rows(out + (size_t)i * (size_t)d, e->sum, e->rows + (size_t)row * (size_t)d, length, d);
        row = round_up(row + length, ROW_ALIGN);
    }
    return OK;
}

static int embed_all(struct session *s, float *out, struct embedding *e, const struct ragged *texts, int token_budget) {
    const struct weights *w = s->weights;
    struct groups g;
    struct micro_batch mb;
    int rows, head_rows, longest = 0;
    TRY(groups_of_texts(e, &g, texts, w->spec.vocab_size));
    for (int i = 0; i < texts->n; i++) longest = max_int(longest, ragged_length(texts, i));
    batch_limits(&rows, &head_rows, &g, token_budget);
    head_rows = max_int(head_rows, rows);
    if (!rows) return OK;
    TRY(session_reserve(
        s,
        &(struct text_limits){
            .rows = rows, .head_rows = head_rows, .slots = 1, .segments = 2 * texts->n, .positions = longest},
        0, 0));
    TRY(embedding_reserve(e, w, rows));
    for (int prompt = 0, completion = 0; batch_next(&mb, &prompt, &completion, &g, NULL, token_budget);)
        TRY(embed_batch(s, out, e, &g, &mb));
    return OK;
}

int embed(struct session *s, float *out, const struct ragged *texts, int token_budget) {
    if (token_budget < 1) return fail(E_CONFIG, "token_budget is %d, must be positive", token_budget);
    struct embedding e = {0};
    int status = embed_all(s, out, &e, texts, token_budget);
    embedding_free(&e, &s->weights->device);
    return status;
}
