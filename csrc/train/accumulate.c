/* Gradients: forward and backward over micro-batches. */
#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "train/trainer.h"

/* Room for the embedding gradient of `more` tokens on top of those of this step so far. */
static int reserve_embedding(struct trainer *t, int more) {
    const struct weights *w = t->weights;
    const struct device *d = &w->device;
    size_t row = stream_bytes(w, 1);
    int need = t->embed_n + more;
    if (need <= t->embed_max) return OK;
    need = embed_room(need);
    real *dx = device_alloc(d, (size_t)need * row);
    int32_t *ids = device_alloc(d, (size_t)need * sizeof *ids);
    int status = dx && ids ? OK : fail(E_MEMORY, "no memory for the embedding gradient of %d tokens", need);
    if (!status && t->embed_n) status = op_copy(d, dx, t->embed_dx, (size_t)t->embed_n * row);
    if (!status && t->embed_n) status = op_copy(d, ids, t->embed_ids, (size_t)t->embed_n * sizeof *ids);
    device_release(d, status ? dx : t->embed_dx);
    device_release(d, status ? ids : t->embed_ids);
    TRY(status);
    t->embed_dx = dx;
    t->embed_ids = ids;
    t->embed_max = need;
    return OK;
}

int tower_rows(const struct spec *tower, double share, int largest, int64_t all, int token_budget) {
    double budget = ceil(share * token_budget);
    int most = max_int(largest, budget < (double)all ? (int)budget : (int)all);
    return round_up(most, ROW_ALIGN * cell_patches(tower));
}

/* Rows of the tower in the largest micro-batch, whichever groups are wanted: a batch within the budget has no more of
   them for a row of text than the group that has most. */
static int tower_limits(const struct trainer *t, const struct groups *g) {
    const struct pictures *p = g->pictures;
    const struct spec *s = &t->tower.weights->spec;
    double most = 0;
    int64_t all = 0;
    int largest = 0;
    for (int i = 0; i < g->prompts.n; i++) {
        int rows = picture_rows(s, p->list + p->offset[i], (int)(p->offset[i + 1] - p->offset[i]));
        double share = (double)rows / ragged_length(&g->prompts, i);
        most = share > most ? share : most;
        largest = max_int(largest, rows);
        all += rows;
    }
    return tower_rows(s, most, largest, all, t->config.token_budget);
}

static int reserve_tower(struct trainer *t, const struct groups *g) {
    if (t->n_groups == 1 || !g->pictures) return OK;
    const struct weights *w = t->groups[GROUP_TOWER].weights;
    t->tower.weights = w;
    int rows = tower_limits(t, g);
    if (rows <= t->tower.acts.rows_max) return OK;
    tower_free(&t->tower);
    return tower_create(&t->tower, w, tower_stashing(t->config.vision, t->config.recompute), rows);
}

/* Activations and batch for the largest micro-batch so far: memory is taken in the first step, and more only for a
   longer group. */
static int reserve(struct trainer *t, const struct groups *g) {
    const struct weights *w = t->weights;
    int rows, head_rows, segments = g->prompts.n + g->completions.n;
    batch_limits(&rows, &head_rows, g, INT_MAX);
    TRY(reserve_embedding(t, rows));
    batch_limits(&rows, &head_rows, g, t->config.token_budget);
    rows = max_int(rows, t->acts.rows_max);
    head_rows = max_int(head_rows, t->acts.head_rows_max);
    struct text_limits need = {.rows = rows,
                               .head_rows = head_rows,
                               .slots = 1,
                               .segments = max_int(segments, t->batch.segments_max),
                               .positions = groups_longest(g),
                               .vectors = min_int(all_image_tokens(g), rows)};
    TRY(text_reserve(w, &need));
    TRY(reserve_tower(t, g));
    if (rows > t->acts.rows_max || head_rows > t->acts.head_rows_max) {
        activations_free(&t->acts);
        TRY(activations_create(&t->acts, w, t->config.recompute ? STASH_INPUTS : STASH_ALL, rows, head_rows));
    }
    TRY(batch_reserve(&t->batch, w, &(struct batch_sizes){rows, head_rows, segments, need.vectors}));
    void *memory;
    assert(t->acts.bytes % 64 == 0);
    TRY(workspace_take(t->workspace, &memory, t->acts.bytes + t->tower.bytes));
    activations_place(&t->acts, memory);
    if (t->tower.bytes) tower_place(&t->tower, (char *)memory + t->acts.bytes);
    return OK;
}

/* Remembers dx of the batch just run for the end of the step. */
static int defer_embedding(struct trainer *t) {
    const struct weights *w = t->weights;
    size_t row = stream_bytes(w, 1), N = (size_t)t->batch.rows.N;
    TRY(op_copy(&w->device, (char *)t->embed_dx + (size_t)t->embed_n * row, t->acts.dx, N * row));
    TRY(op_copy(&w->device, t->embed_ids + t->embed_n, t->batch.ids, N * sizeof(int32_t)));
    t->embed_n += t->batch.rows.N;
    return OK;
}

/* Backward of the packed batch from coefficients that lie flat on the host. */
static int backward(struct trainer *t, const struct groups *g, const struct micro_batch *mb,
                    const struct coefficients *c, float inv) {
    struct batch *b = &t->batch;
    const struct device *d = &t->weights->device;
    TRY(batch_put(d, b->coef, c->coef, g, mb));
    if (c->ecoef) TRY(batch_put(d, b->ecoef, c->ecoef, g, mb));
    b->targets.coef = b->coef;
    b->targets.ecoef = c->ecoef ? b->ecoef : NULL;
    struct gradients grads = gradients_of(&t->groups[GROUP_TEXT]);
    TRY(text_backward(&t->acts, &b->rows, &b->targets, &grads, inv));
    TRY(defer_embedding(t));
    if (!b->vectors.differentiate) return OK;
    struct feature_rows d_features = {b->vectors.values, b->vectors.n, 0};
    grads = gradients_of(&t->groups[GROUP_TOWER]);
    return tower_backward(&t->tower, &d_features, &grads, t->config.vision == VISION_MERGERS);
}

/* Rows of the store that hold the packed rows of a group of n completions, from its first row on; padding repeats
   the first. Returns their number, or 0 when one of its completions is not there. */
static int stored_rows(int32_t *rows, const struct store *store, const struct groups *g, const int64_t *ids, int prompt,
                       int completion, int n) {
    const struct stored_group *stored = NULL;
    int at = 0, P = ragged_length(&g->prompts, prompt);
    for (int i = completion; i < completion + n; i++) {
        int place, length = ragged_length(&g->completions, i);
        const struct stored_group *found = store_find(store, &place, ids[i], P, max_int(0, length - 1));
        if (!found || (stored && found != stored)) return 0;
        if (!stored)
            for (stored = found; at < P; at++) rows[at] = stored->prompt[at];
        for (int t = 0; t + 1 < length; t++)
            rows[at++] = stored->rows[(size_t)place * (size_t)stored->width + (size_t)t];
    }
    assert(stored);                        /* a group of a batch has completions */
    while (at % ROW_ALIGN) rows[at++] = stored->prompt[0];
    return at;
}

/* The micro-batch's activations from the store, when all are there. */
static int load(struct trainer *t, int *loaded, const struct groups *g, const struct micro_batch *mb,
                const struct store *store, const int64_t *ids) {
    struct batch *b = &t->batch;
    int32_t *rows = malloc((size_t)mb->rows * sizeof *rows);
    if (!rows) return fail(E_MEMORY, "no memory for %d rows", mb->rows);
    int count, head, at = 0, status = OK;
    *loaded = store->stash.what == STASH_ALL || t->acts.stash.what == STASH_INPUTS;
    for (int p = mb->prompt, c = mb->completion; *loaded && (count = batch_group(&p, &c, &head, g, mb));
         p++, c += count) {
        int n = stored_rows(rows + at, store, g, ids, p, c, count);
        *loaded = n > 0;
        at += n;
    }
    assert(!*loaded || at == mb->rows);
    if (*loaded) {
        struct stash_rows from = {(struct stashes *)&store->stash, b->stored};
        status = device_upload(&t->weights->device, b->stored, rows, (size_t)at * sizeof *rows);
        if (!status) status = text_load(&t->acts, &b->rows, &from);
    }
    free(rows);
    return status;
}

/* Features of the micro-batch's images from the tower that is trained; one that is frozen was asked before. */
static int run_tower(struct trainer *t, const struct groups *g, const struct micro_batch *mb) {
    struct batch *b = &t->batch;
    const struct pictures *pictures = g->pictures;
    int count, head, n = 0;
    if (t->n_groups == 1) return OK;
    int64_t most = pictures->offset[mb->prompt + mb->n_prompts] - pictures->offset[mb->prompt];
    struct picture *list = malloc((size_t)(most + 1) * sizeof *list);
    if (!list) return fail(E_MEMORY, "no memory for %lld images", (long long)most);
    for (int p = mb->prompt, c = mb->completion; (count = batch_group(&p, &c, &head, g, mb)); p++, c += count)
        for (int64_t k = pictures->offset[p]; k < pictures->offset[p + 1]; k++) list[n++] = pictures->list[k];
    b->vectors.differentiate = 1;
    struct feature_rows features = {b->vectors.values, b->vectors.n, 0};
    int status = tower_forward(&t->tower, &features, list, n);
    free(list);
    return status;
}

static int forward(struct trainer *t, const struct groups *g, const struct micro_batch *mb, const struct store *store,
                   const int64_t *ids) {
    struct batch *b = &t->batch;
    int loaded = 0;
    TRY(batch_pack(b, g, mb));
    if (b->rows.vectors) TRY(run_tower(t, g, mb));
    if (store && ids) TRY(load(t, &loaded, g, mb, store, ids));
    if (!loaded) TRY(text_forward(&t->acts, &b->rows, NULL));
    return text_pick(&t->acts, b->targets.rows, b->targets.R);
}

static int read_scores(struct trainer *t, float *logp, float *entropy, const struct groups *g,
                       const struct micro_batch *mb) {
    TRY(batch_get(&t->weights->device, logp, t->batch.logp, g, mb));
    return batch_get(&t->weights->device, entropy, t->batch.entropy, g, mb);
}

static void mark_wanted(uint8_t *wanted, const struct groups *g, const struct coefficients *c) {
    for (int i = 0; i < g->completions.n; i++)
        for (int64_t k = g->completions.offset[i]; k < g->completions.offset[i + 1]; k++)
            if (c->coef[k] != 0 || (c->ecoef && c->ecoef[k] != 0)) wanted[g->group[i]] = 1;
}

static int accumulate(struct trainer *t, float *logp, float *entropy, const struct groups *g,
                      const struct coefficients *c, float inv, const struct store *store, const int64_t *ids) {
    uint8_t *wanted = calloc((size_t)g->prompts.n, 1);
    if (!wanted) return fail(E_MEMORY, "no memory for %d groups", g->prompts.n);
    mark_wanted(wanted, g, c);
    struct micro_batch mb;
    const uint8_t *some = t->config.gradients_only ? NULL : wanted;
    int status = OK;
    for (int prompt = 0, completion = 0;
         !status && batch_next(&mb, &prompt, &completion, g, some, t->config.token_budget);) {
        status = forward(t, g, &mb, store, ids);
        if (!status) status = backward(t, g, &mb, c, inv);
        if (!status) status = read_scores(t, logp, entropy, g, &mb);
    }
    free(wanted);
    return status;
}

/* A trained tower has the images' pixels, else they have features */
static int check_pictures(const struct trainer *t, const struct groups *g) {
    const struct pictures *p = g->pictures;
    int trained = t->n_groups > 1;
    TRY(pictures_have(g, trained));
    return trained ? pictures_check(p->list, (int)p->offset[g->prompts.n], &t->groups[GROUP_TOWER].weights->spec) : OK;
}

/* Checks and memory of both calls; *empty: there is nothing to run */
static int begin(struct trainer *t, const struct groups *g, float *inv, float temperature, int *empty) {
    int rows, head_rows;
    TRY(inverse_temperature(inv, temperature));
    TRY(groups_check(g, &t->weights->spec));
    if (g->pictures) TRY(check_pictures(t, g));
    batch_limits(&rows, &head_rows, g, INT_MAX);
    *empty = !rows;
    return *empty ? OK : reserve(t, g);
}

int trainer_accumulate(struct trainer *t, float *logp, float *entropy, const struct groups *g,
                       const struct coefficients *c, float temperature, const struct store *store, const int64_t *ids) {
    float inv;
    int empty;
    TRY(begin(t, g, &inv, temperature, &empty));
    if (empty) return OK;
    int status = accumulate(t, logp, entropy, g, c, inv, store, ids);
    if (status) trainer_zero_grad(t);
    return status;
}

int trainer_accumulate_objective(struct trainer *t, float *logp, float *entropy, const struct groups *g,
                                 const struct objective *o, float temperature) {
    float inv;
    int empty;
    TRY(begin(t, g, &inv, temperature, &empty));
    if (empty) return OK;
    size_t tokens = (size_t)g->completions.offset[g->completions.n];
    float *coef = calloc(2 * tokens, sizeof *coef), *ecoef = o->has_ecoef ? coef + tokens : NULL;
    if (!coef) return fail(E_MEMORY, "no memory for %zu tokens", tokens);
    struct coefficients c = {coef, ecoef};
    struct micro_batch mb;
    int status = OK;
    for (int prompt = 0, completion = 0;
         !status && batch_next(&mb, &prompt, &completion, g, NULL, t->config.token_budget);) {
        status = forward(t, g, &mb, NULL, NULL);
        if (!status) status = text_head(&t->acts, &t->batch.targets, inv);
        if (!status) status = read_scores(t, logp, entropy, g, &mb);
        if (!status) status = o->evaluate(o->arg, coef, ecoef, logp, entropy, g, mb.completion, mb.n_completions);
        if (!status) status = backward(t, g, &mb, &c, inv);
    }
    free(coef);
    if (status) trainer_zero_grad(t);
    return status;
}

int trainer_flush(struct trainer *t) {
    struct gradients grads = gradients_of(&t->groups[GROUP_TEXT]);
    if (t->embed_n) TRY(text_embed_backward(t->weights, &grads, t->embed_dx, t->embed_ids, t->embed_n));
    t->embed_n = 0;
    return OK;
}

int trainer_zero_grad(struct trainer *t) {
    t->embed_n = 0;
    for (int k = 0; k < t->n_groups; k++) {
        const struct param_group *g = &t->groups[k];
        TRY(op_zero(&g->weights->device, g->grads, g->n_elements * sizeof(float)));
    }
    return OK;
}
