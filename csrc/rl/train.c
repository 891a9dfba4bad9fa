#include "rl/train.h"
#include "rl/inference.h"
#include "rl/score.h"
#include "model/kept.h"
#include "ops/device.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct trainer_sizes trainer_sizes(const struct ops *ops, const struct config *c, enum moment_dtype moments, enum master_dtype masters) {
    size_t n = model_elements(c), lower = (size_t)ops->real_size < sizeof(float) ? n * lower_element(masters) : 0;
    return (struct trainer_sizes){.grads = n * sizeof(float), .lower = lower,
                                  .moments = 2 * model_moment_bytes(c, moments)};
}

size_t embed_row_bytes(const struct ops *ops, const struct config *c) {
    return (size_t)c->d_model * (size_t)ops->real_size + sizeof(int32_t);
}

int trainer_create(struct trainer **out, struct model *m, const struct train_config *config, int optimizer) {
    const struct train_config *c = config;
    if (c->token_budget < 1) return fail(E_CONFIG, "token_budget is %d, must be positive", c->token_budget);
    if (!(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1))
        return fail(E_CONFIG, "adam_beta1 and adam_beta2 (%g, %g) must be in [0, 1)", (double)c->beta1, (double)c->beta2);
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return fail(E_MEMORY, "no memory for a trainer");
    t->m = m;
    t->config = *c;
    struct trainer_sizes size = trainer_sizes(m->device.ops, &m->config, c->moments, c->masters);
    const struct { void **arena; size_t bytes; } arenas[] = {
        {(void **)&t->grads, size.grads}, {&t->lower, size.lower}, {&t->moment1, size.moments / 2}, {&t->moment2, size.moments / 2}};
    int status = OK;
    for (int i = 0; i < (optimizer ? 4 : 1) && !status; i++) {
        if (arenas[i].bytes) *arenas[i].arena = device_alloc(&m->device, arenas[i].bytes);
        if (arenas[i].bytes && !*arenas[i].arena)
            status = fail(E_MEMORY, "training needs %.2f GB for gradients, master weights and moments",
                          (double)(size.grads + size.lower + size.moments) / 1e9);
    }
    if (status) {
        trainer_free(t);
        return status;
    }
    if (optimizer) m->lower = t->lower, m->masters = c->masters;           /* 0: masters are the working weights, exactly */
    *out = t;
    return OK;
}

void trainer_free(struct trainer *t) {
    if (!t) return;
    if (t->lower && t->m->lower == t->lower) t->m->lower = NULL;
    void *all[] = {t->grads, t->lower, t->moment1, t->moment2, t->embed_dx, t->embed_ids};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_release(&t->m->device, all[i]);
    activations_free(&t->acts);
    batch_free(&t->batch, t->m);
    free(t);
}

/* Room for the embedding gradient of `more` tokens on top of those of this step so far. */
static int reserve_embedding(struct trainer *t, int more) {
    struct model *m = t->m;
    size_t row = (size_t)m->config.d_model * (size_t)m->device.ops->real_size;
    int need = t->embed_n + more;
    if (need <= t->embed_max) return OK;
    need = embed_room(need);
    real *dx = device_alloc(&m->device, (size_t)need * row);
    int32_t *ids = device_alloc(&m->device, (size_t)need * sizeof *ids);
    int status = dx && ids ? OK : fail(E_MEMORY, "no memory for the embedding gradient of %d tokens", need);
    if (!status && t->embed_n) status = op_copy(&m->device, dx, t->embed_dx, (size_t)t->embed_n * row);
    if (!status && t->embed_n) status = op_copy(&m->device, ids, t->embed_ids, (size_t)t->embed_n * sizeof *ids);
    device_release(&m->device, status ? dx : t->embed_dx);
    device_release(&m->device, status ? ids : t->embed_ids);
    TRY(status);
    t->embed_dx = dx;
    t->embed_ids = ids;
    t->embed_max = need;
    return OK;
}

/* Activations and batch for the largest micro-batch so far: memory is taken in the first step, and more only for a longer group. */
static int reserve(struct trainer *t, const struct groups *g) {
    struct model *m = t->m;
    int rows, head_rows, segments = g->prompts.n + g->completions.n, longest = 0;
    batch_limits(&rows, &head_rows, g, INT_MAX);
    TRY(reserve_embedding(t, rows));
    batch_limits(&rows, &head_rows, g, t->config.token_budget);
    for (int i = 0; i < g->completions.n; i++)
        longest = max_int(longest, ragged_length(&g->prompts, g->group[i]) + ragged_length(&g->completions, i));
    TRY(reserve_scratch(m, max_int(rows, t->acts.rows_max), max_int(head_rows, t->acts.head_rows_max), 1,
                        max_int(segments, t->batch.segments_max), longest, 0));
    if (rows > t->acts.rows_max || head_rows > t->acts.head_rows_max) {
        rows = max_int(rows, t->acts.rows_max);
        head_rows = max_int(head_rows, t->acts.head_rows_max);
        activations_free(&t->acts);
        TRY(activations_create(&t->acts, m, t->config.recompute ? KEEP_INPUTS : KEEP_ALL, rows, head_rows));
    }
    if (rows > t->batch.rows_max || head_rows > t->batch.head_rows_max || segments > t->batch.segments_max) {
        int batch_rows = max_int(rows, t->batch.rows_max), batch_head = max_int(head_rows, t->batch.head_rows_max);
        segments = max_int(segments, t->batch.segments_max);
        batch_free(&t->batch, m);
        TRY(batch_create(&t->batch, m, batch_rows, batch_head, segments));
    }
    void *arena;
    TRY(model_workspace(m, &arena, t->acts.bytes));
    activations_place(&t->acts, arena);
    return OK;
}

/* Remembers dx of the batch just run for the end of the step. */
static int defer_embedding(struct trainer *t) {
    struct model *m = t->m;
    size_t row = (size_t)m->config.d_model * (size_t)m->device.ops->real_size;
    int N = t->batch.N;
    TRY(op_copy(&m->device, (char *)t->embed_dx + (size_t)t->embed_n * row, t->acts.dx, (size_t)N * row));
    TRY(op_copy(&m->device, t->embed_ids + t->embed_n, t->batch.ids, (size_t)N * sizeof(int32_t)));
    t->embed_n += N;
    return OK;
}

/* Backward of the packed batch from coefficients that lie flat on the host. */
static int backward(struct trainer *t, const struct groups *g, const struct micro_batch *mb, const float *coef, const float *ecoef, float inv) {
    TRY(batch_put(t->m, t->batch.coef, coef, g, mb));
    if (ecoef) TRY(batch_put(t->m, t->batch.ecoef, ecoef, g, mb));
    TRY(text_backward(&t->acts, &t->batch, t->grads, inv, ecoef != NULL));
    return defer_embedding(t);
}

/* Rows of the store that hold the packed rows of a group, from its first row on; padding repeats the first. Returns their number, or
   0 when one of its completions is not there. */
static int kept_rows(int32_t *rows, const struct model *m, const struct groups *g, const int64_t *ids, int prompt, int completion, int n) {
    const struct kept *k = m->kept;
    int at = 0, P = ragged_length(&g->prompts, prompt), first = -1;
    for (int i = completion; i < completion + n; i++) {
        int length = ragged_length(&g->completions, i), c = kept_find(m, ids[i], P, max_int(0, length - 1));
        if (c < 0 || (first >= 0 && first != k->prompt_row[c / k->num_generations])) return 0;
        if (first < 0)
            for (first = k->prompt_row[c / k->num_generations]; at < P; at++) rows[at] = first + at;
        for (int t = 0; t + 1 < length; t++) rows[at++] = k->row[(size_t)c * (size_t)k->width + (size_t)t];
    }
    while (at % ROW_ALIGN) rows[at++] = first;
    return at;
}

/* The micro-batch's activations from the store, when all are there. */
static int recall(struct trainer *t, int *done, const struct groups *g, const struct micro_batch *mb, const int64_t *ids) {
    int32_t *rows = malloc((size_t)mb->rows * sizeof *rows);
    if (!rows) return fail(E_MEMORY, "no memory for %d rows", mb->rows);
    int count, head, at = 0, status = OK;
    *done = t->m->kept && (t->m->kept->store.keep == KEEP_ROWS || t->acts.keep == KEEP_INPUTS);
    for (int p = mb->prompt, c = mb->completion; *done && (count = batch_group(&p, &c, &head, g, mb)); p++, c += count) {
        int n = kept_rows(rows + at, t->m, g, ids, p, c, count);
        *done = n > 0;
        at += n;
    }
    if (*done) {
        struct keeper keeper = {&t->m->kept->store, t->batch.kept};
        status = device_upload(&t->m->device, t->batch.kept, rows, (size_t)at * sizeof *rows);
        if (!status) status = text_recall(&t->acts, &t->batch, &keeper);
    }
    free(rows);
    return status;
}

static int forward(struct trainer *t, const struct groups *g, const struct micro_batch *mb, const int64_t *kept) {
    int recalled = 0;
    TRY(batch_pack(&t->batch, t->m, g, mb));
    if (kept) TRY(recall(t, &recalled, g, mb, kept));
    return recalled ? OK : text_forward(&t->acts, &t->batch, NULL, NULL, NULL);
}

static int read_scores(struct trainer *t, float *logp, float *entropy, const struct groups *g, const struct micro_batch *mb) {
    TRY(batch_get(t->m, logp, t->batch.logp, g, mb));
    return batch_get(t->m, entropy, t->batch.entropy, g, mb);
}

static void mark_wanted(uint8_t *wanted, const struct groups *g, const float *coef, const float *ecoef) {
    for (int i = 0; i < g->completions.n; i++)
        for (int64_t k = g->completions.offset[i]; k < g->completions.offset[i + 1]; k++)
            if (coef[k] != 0 || (ecoef && ecoef[k] != 0)) wanted[g->group[i]] = 1;
}

int trainer_accumulate(struct trainer *t, float *logp, float *entropy, const struct groups *g, const float *coef, const float *ecoef,
                       float temperature, const int64_t *kept) {
    float inv;
    TRY(inverse_temperature(&inv, temperature));
    TRY(groups_check(g, t->m->config.vocab_size));
    TRY(reserve(t, g));
    uint8_t *wanted = calloc((size_t)max_int(1, g->prompts.n), 1);
    if (!wanted) return fail(E_MEMORY, "no memory for %d groups", g->prompts.n);
    mark_wanted(wanted, g, coef, ecoef);
    struct micro_batch mb;
    int status = OK;
    const uint8_t *some = t->moment1 ? wanted : NULL;
    for (int prompt = 0, completion = 0; !status && batch_next(&mb, &prompt, &completion, g, some, t->config.token_budget);) {
        status = forward(t, g, &mb, kept);
        if (!status) status = backward(t, g, &mb, coef, ecoef, inv);
        if (!status) status = read_scores(t, logp, entropy, g, &mb);
    }
    free(wanted);
    if (status) trainer_zero_grad(t);
    return status;
}

/* The loss of one micro-batch; its completions are a run of the flat arrays. */
static int micro_loss(double *loss, struct loss_metrics *metrics, float *coef, float *ecoef, const float *logp, const float *entropy,
                      const struct groups *g, const struct micro_batch *mb, const struct loss_inputs *in, int32_t *lengths) {
    int64_t at = g->completions.offset[mb->completion];
    for (int i = 0; i < mb->n_completions; i++) lengths[i] = ragged_length(&g->completions, mb->completion + i);
    int status = loss_eval(loss, coef + at, ecoef ? ecoef + at : NULL, metrics, in->config, in->normalizer, mb->n_completions, lengths,
                           logp + at, in->old_logp + at, in->ref_logp ? in->ref_logp + at : NULL, entropy + at,
                           in->advantage + mb->completion, in->mask + at);
    if (status != E_NONFINITE || !mb->completion) return status;
    char said[512];                /* loss_eval counts from the micro-batch's first completion */
    snprintf(said, sizeof said, "%s", fail_message());
    return fail(status, "counted from completion %d on: %s", mb->completion, said);
}

int trainer_accumulate_loss(struct trainer *t, double *loss, struct loss_metrics *metrics, float *logp, float *entropy,
                            const struct groups *g, const struct loss_inputs *in, float temperature) {
    float inv;
    TRY(inverse_temperature(&inv, temperature));
    TRY(groups_check(g, t->m->config.vocab_size));
    TRY(reserve(t, g));
    size_t tokens = (size_t)g->completions.offset[g->completions.n];
    float *coef = calloc(2 * tokens + 1, sizeof *coef);
    float *ecoef = in->config->entropy_coef != 0 || in->config->use_adaptive_entropy ? coef + tokens : NULL;
    int32_t *lengths = calloc((size_t)g->completions.n + 1, sizeof *lengths);
    int status = coef && lengths ? OK : fail(E_MEMORY, "no memory for %zu tokens", tokens);
    struct micro_batch mb;
    for (int prompt = 0, completion = 0; !status && batch_next(&mb, &prompt, &completion, g, NULL, t->config.token_budget);) {
        status = forward(t, g, &mb, NULL);
        if (!status) status = text_head(&t->acts, &t->batch, inv);
        if (!status) status = read_scores(t, logp, entropy, g, &mb);
        if (!status) status = micro_loss(loss, metrics, coef, ecoef, logp, entropy, g, &mb, in, lengths);
        if (!status) status = backward(t, g, &mb, coef, ecoef, inv);
    }
    free(coef);
    free(lengths);
    if (status) trainer_zero_grad(t);
    return status;
}

int trainer_flush(struct trainer *t) {
    if (t->embed_n) TRY(text_embed_backward(t->m, t->grads, t->embed_dx, t->embed_ids, t->embed_n));
    t->embed_n = 0;
    return OK;
}

int trainer_zero_grad(struct trainer *t) {
    t->embed_n = 0;
    return op_zero(&t->m->device, t->grads, t->m->n_elements * sizeof(float));
}

static int find_nonfinite(struct trainer *t, double norm) {
    struct model *m = t->m;
    for (int i = 0; i < m->n_params; i++) {
        double squares;
        TRY(op_sum_squares(&m->device, &squares, t->grads + m->params[i].offset, param_size(&m->params[i])));
        if (isfinite(squares)) continue;
        char name[128];
        model_tensor_name(name, sizeof name, &m->params[i], 0);
        return fail(E_NONFINITE, "the gradient of %s is not finite; the weights were left as they were", name);
    }
    return fail(E_NONFINITE, "the gradient norm is %g; the weights were left as they were", norm);
}

int trainer_step(struct trainer *t, double *norm, float learning_rate, float max_norm) {
    struct model *m = t->m;
    const struct train_config *c = &t->config;
    double squares;
    TRY(trainer_flush(t));
    TRY(op_sum_squares(&m->device, &squares, t->grads, m->n_elements));
    *norm = sqrt(squares);
    if (!isfinite(*norm)) {
        int status = find_nonfinite(t, *norm);
        TRY(trainer_zero_grad(t));
        return status;
    }
    double step = (double)++t->steps_taken;
    struct adamw p = {
        .lr = learning_rate, .beta1 = c->beta1, .beta2 = c->beta2, .eps = c->eps,
        .grad_scale = max_norm > 0 ? fminf(1.0f, (float)(max_norm / (*norm + 1e-6))) : 1.0f,
        .correction1 = (float)(1 - pow((double)c->beta1, step)), .correction2 = (float)(1 - pow((double)c->beta2, step)),
        .masters = c->masters, .seed = c->seed, .step = (uint32_t)t->steps_taken,
    };
    char *moment1 = t->moment1, *moment2 = t->moment2;
    m->version++;
    for (int i = 0; i < m->n_params; i++) {
        const struct param *q = &m->params[i];
        size_t at = q->offset;
        p.weight_decay = q->C ? c->weight_decay : 0;
        p.first = at;
        p.moments = param_moments(q, c->moments);
        void *lower = t->lower ? (char *)t->lower + at * lower_element(c->masters) : NULL;
        TRY(op_adamw(&m->device, q->w, lower, moment1, moment2, t->grads + at, q->O, q->C, &p));
        moment1 += param_moment_bytes(q, c->moments);
        moment2 += param_moment_bytes(q, c->moments);
    }
    return trainer_zero_grad(t);
}
