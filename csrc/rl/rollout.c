#include "rl/engine.h"
#include "ops/device.h"

#include <stdlib.h>

enum { SLOTS_MAX = 4096,
       SEQUENCES_MAX = 1 << 24,
       LOOKAHEAD_MAX = 64,
       PREFILL_ROWS = 2048,      /* prompts prefilled together, in rows; a longer prompt goes alone */
       PROMPT_STEP = 128 };      /* positions */

/* -- sizes -------------------------------------------------------------------------------------------------------- */

/* Rows of the largest batch: prompts prefilled together. */
static int prefill_rows_of(int prompts, int prompt_length) {
    int64_t all = (int64_t)prompts * prompt_length;
    int most = max_int(PREFILL_ROWS, prompt_length);
    return all < most ? (int)all : most;
}

/* Where steps are recorded, prompts count as up to PROMPT_STEP - 1 longer than they are: the memory of the next rollout is
   then laid out as it was for this one, and the recordings serve again. */
static void measure(struct engine *e, const struct ops *ops, int slots, int prompts, int prompt_length) {
    int tokens = e->q->max_new_tokens;
    e->S = slots;
    e->lookahead = max_int(1, min_int(e->q->lookahead ? e->q->lookahead : ops->lookahead, tokens - 1));
    e->prompt_max = e->lookahead > 1 ? round_up(prompt_length, PROMPT_STEP) : prompt_length;
    e->max_pages = pages_of(e->prompt_max + tokens);
    e->shared_pages = e->q->num_generations > 1 ? e->prompt_max / KV_TILE : 0;
    /* every slot its own tail, which may begin anywhere in a page, and in the worst case (one straggler a group) its own prompt */
    int at_once = min_int(e->S, prompts);
    e->n_pages = e->S * pages_of(KV_TILE - 1 + tokens) + at_once * pages_of(e->prompt_max);
    e->prefill_rows = prefill_rows_of(at_once, e->prompt_max);
    e->rows = max_int(e->prefill_rows, e->S);
}

/* The engine's backend memory, beside activations and KV pages; its size. */
static size_t lay_out(struct engine *e, char *base, const struct ops *ops, const struct config *c) {
    struct layout s = {base, 0};
    size_t S = (size_t)e->S, V = (size_t)c->vocab_size, d = (size_t)c->d_model;
    e->device = layout_take(&s, window_bytes(e), 1);
    e->place = layout_take(&s, (size_t)e->prefill_rows, sizeof(int32_t));
    e->keep = layout_take(&s, (size_t)e->prefill_rows, sizeof(int32_t));
    e->first_hidden = layout_take(&s, S * d, (size_t)ops->real_size);
    e->stop_ids = layout_take(&s, (size_t)e->q->n_stop, sizeof(int32_t));
    if (e->q->n_forbidden) e->forbidden = layout_take(&s, V, 1);
    if (e->q->sampler.repetition_penalty != 1) e->seen = layout_take(&s, S * V, 1);
    return s.at;
}

size_t rollout_bytes(const struct ops *ops, const struct config *c, int slots, int prompts, int prompt_length, int max_new_tokens) {
    const struct rollout_request q = {.max_new_tokens = max_new_tokens, .sampler = {.repetition_penalty = 1}};
    struct engine e = {.q = &q};
    measure(&e, ops, slots, prompts, prompt_length);
    return kv_bytes(ops, c, e.n_pages) + activations_bytes(ops, c, KEEP_NONE, e.rows, slots) + lay_out(&e, NULL, ops, c);
}

/* -- set-up -------------------------------------------------------------------------------------------------------- */

static int check_ids(const char *what, const int32_t *ids, int n, int vocab_size) {
    for (int i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab_size)
            return fail(E_CONFIG, "%s id %d is outside the vocabulary of %d", what, (int)ids[i], vocab_size);
    return OK;
}

/* Something must be left to draw when forbidden ids, and early on the stop ids, are out. */
static int check_choice(const struct rollout_request *q, int vocab_size) {
    if (q->n_forbidden + q->n_stop < vocab_size) return OK;
    uint8_t *out = calloc((size_t)vocab_size, 1);
    if (!out) return fail(E_MEMORY, "no memory for a vocabulary of %d", vocab_size);
    int left = vocab_size;
    for (int i = 0; i < q->n_forbidden; i++) left -= !out[q->forbidden_ids[i]], out[q->forbidden_ids[i]] = 1;
    for (int i = 0; i < q->n_stop && q->min_new_tokens; i++) left -= !out[q->stop_ids[i]], out[q->stop_ids[i]] = 1;
    free(out);
    return left ? OK : fail(E_CONFIG, "forbidden_ids leave no token to draw");
}

static int check_request(const struct rollout_request *q, const struct config *c) {
    const struct sampler *s = &q->sampler;
    if (q->num_generations < 1) return fail(E_CONFIG, "num_generations is %d, must be positive", q->num_generations);
    if (q->max_new_tokens < 1) return fail(E_CONFIG, "max_new_tokens is %d, must be positive", q->max_new_tokens);
    if (q->keep_rows < 0) return fail(E_CONFIG, "keep_rows is %d, must not be negative", q->keep_rows);
    if (q->slots < 1 || q->slots > SLOTS_MAX) return fail(E_CONFIG, "slots is %d, must be 1..%d", q->slots, SLOTS_MAX);
    if (!(s->temperature >= 0)) return fail(E_CONFIG, "temperature is %g, must be 0 (greedy) or positive", (double)s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1)) return fail(E_CONFIG, "top_p is %g, must be in (0, 1]", (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) return fail(E_CONFIG, "min_p is %g, must be in [0, 1]", (double)s->min_p);
    if (s->top_k < 0) return fail(E_CONFIG, "top_k is %d, must be 0 (off) or positive", s->top_k);
    if (!(s->repetition_penalty > 0)) return fail(E_CONFIG, "repetition_penalty is %g, must be positive", (double)s->repetition_penalty);
    if (q->min_new_tokens < 0) return fail(E_CONFIG, "min_new_tokens is %d, must not be negative", q->min_new_tokens);
    if (q->lookahead < 0 || q->lookahead > LOOKAHEAD_MAX)
        return fail(E_CONFIG, "lookahead is %d, must be 0 (the device's) or up to %d", q->lookahead, LOOKAHEAD_MAX);
    if ((int64_t)q->prompts.n * q->num_generations > SEQUENCES_MAX)
        return fail(E_CONFIG, "num_generations is %d: %d prompts would make more than %d completions", q->num_generations, q->prompts.n, SEQUENCES_MAX);
    TRY(check_ids("stop", q->stop_ids, q->n_stop, c->vocab_size));
    TRY(check_ids("forbidden", q->forbidden_ids, q->n_forbidden, c->vocab_size));
    TRY(check_choice(q, c->vocab_size));
    for (int i = 0; i < q->n_stop_strings; i++)
        if (q->stop_offset[i + 1] - q->stop_offset[i] > STOP_TAIL || q->stop_offset[i + 1] == q->stop_offset[i])
            return fail(E_CONFIG, "stop string %d must have 1..%d bytes", i, STOP_TAIL);
    struct groups g = {.prompts = q->prompts};
    return groups_check(&g, c->vocab_size);
}

/* Memory of the host. */
static int engine_alloc(struct engine *e) {
    size_t S = (size_t)e->S;
    e->slots = calloc(S, sizeof *e->slots);
    e->prompts = calloc(S, sizeof *e->prompts);
    e->free_pages = malloc((size_t)e->n_pages * sizeof(int32_t));
    e->page_table = calloc(S * (size_t)e->max_pages, sizeof(int32_t));
    e->host = calloc(1, window_bytes(e));
    e->drawn = calloc(S * (size_t)e->lookahead, sizeof *e->drawn);
    e->flags = malloc((size_t)e->m->config.vocab_size);
    int good = e->slots && e->prompts && e->free_pages && e->page_table && e->host && e->drawn && e->flags;
    for (int i = 0; i < e->S && good; i++)
        good = (e->prompts[i].pages = calloc((size_t)pages_of(e->prompt_max), sizeof(int32_t))) != NULL;
    return good ? OK : fail(E_MEMORY, "no memory for %d rollout slots", e->S);
}

static int engine_start(struct engine *e, struct inference *r) {
    struct model *m = e->m;
    const struct rollout_request *q = e->q;
    TRY(reserve_scratch(m, e->rows, e->S, e->S, e->S, e->prompt_max + q->max_new_tokens, e->shared_pages));
    TRY(inference_reserve(r, e->rows, e->S, e->S, e->n_pages, lay_out(e, NULL, m->device.ops, &m->config)));
    lay_out(e, r->rest, m->device.ops, &m->config);
    e->acts = &r->acts;
    e->batch = &r->batch;
    e->kv = &r->kv;
    TRY(engine_alloc(e));
    if (q->keep_rows) {
        TRY(kept_begin(m, q->prompts.n, q->num_generations, q->max_new_tokens - 1, q->keep_inputs ? KEEP_ROW_INPUTS : KEEP_ROWS, q->keep_rows, e->S));
        e->kept = m->kept;
    }
    for (int i = 0; i < e->n_pages; i++) e->free_pages[e->n_free++] = e->n_pages - 1 - i;
    if (e->forbidden) TRY(upload_flags(e, e->forbidden, q->forbidden_ids, q->n_forbidden));
    TRY(device_upload(&m->device, e->stop_ids, q->stop_ids, (size_t)q->n_stop * sizeof *q->stop_ids));
    e->sampler = q->sampler;
    e->sampler.forbidden = e->forbidden;
    e->sampler.stop_ids = e->stop_ids;
    e->sampler.n_stop = q->n_stop;
    return OK;
}

static void engine_free(struct engine *e) {
    for (int i = 0; e->prompts && i < e->S; i++) free(e->prompts[i].pages);
    free(e->slots);
    free(e->prompts);
    free(e->free_pages);
    free(e->page_table);
    free(e->host);
    free(e->drawn);
    free(e->flags);
}

/* -- prefill --------------------------------------------------------------------------------------------------------------- */

/* Packs prompts of the active entries list[0..n) and keeps keys, values and the last hidden state of each. */
static int run_prefill(struct engine *e, const int *list, int n) {
    struct model *m = e->m;
    const struct ops *ops = m->device.ops;
    const struct config *c = &m->config;
    int rows = e->prefill_rows, N = 0;
    int32_t *ids = calloc(4 * (size_t)rows + 5 * (size_t)n, sizeof *ids);
    if (!ids) return fail(E_MEMORY, "no memory to prefill %d prompts", n);
    int32_t *pos = ids + rows, *place = pos + rows, *keep = place + rows, *last = keep + rows;
    struct segment *segments = (struct segment *)(last + n);
    for (int k = 0; k < n; k++) {
        struct active_prompt *p = &e->prompts[list[k]];
        int P = ragged_length(&e->q->prompts, p->prompt);
        int32_t kept = e->kept ? kept_prompt(e->kept, p->prompt, P) : -1;
        segments[k] = (struct segment){.start = N, .len = P};
        for (int i = 0; i < P; i++, N++) {
            keep[N] = kept < 0 ? i % e->S : kept + i;
            ids[N] = e->q->prompts.ids[e->q->prompts.offset[p->prompt] + i];
            pos[N] = i;
            place[N] = p->pages[i / KV_TILE] * KV_TILE + i % KV_TILE;
        }
        last[k] = N - 1;
    }
    struct batch *b = e->batch;
    b->N = N;
    b->R = n;
    b->n_segments = n;
    int status = device_upload(&m->device, b->ids, ids, (size_t)N * sizeof *ids);
    if (!status) status = device_upload(&m->device, b->pos, pos, (size_t)N * sizeof *pos);
    if (!status) status = device_upload(&m->device, e->place, place, (size_t)N * sizeof *place);
    if (!status) status = device_upload(&m->device, b->rows, last, (size_t)n * sizeof *last);
    if (!status) status = device_upload(&m->device, b->segments, segments, (size_t)n * sizeof *segments);
    struct keeper keeper = {.rows = e->keep};
    if (!status && e->kept) {
        keeper.store = &e->kept->store;
        status = device_upload(&m->device, e->keep, keep, (size_t)N * sizeof *keep);
    }
    if (!status) status = text_forward(e->acts, b, e->kv, e->place, e->kept ? &keeper : NULL);
    size_t row = (size_t)c->d_model * (size_t)ops->real_size;
    for (int k = 0; k < n && !status; k++)
        status = op_copy(&m->device, (char *)e->first_hidden + (size_t)list[k] * row, (char *)e->acts->hidden + (size_t)k * row, row);
    free(ids);
    return status;
}

/* Fills free slots with the next sequences: prefills prompts that are new, then draws every first token. */
static int admit(struct engine *e) {
    struct model *m = e->m;
    int first = e->n_slots, n_new = min_int(e->S - first, e->n_sequences - e->next), n_list = 0, rows = 0, n_copies = 0;
    int list[e->S], active[e->S];
    int32_t copies[2 * e->S];
    double start = clock_seconds();
    for (int i = 0; i < n_new; i++) {
        int prompt = (e->next + i) / e->q->num_generations, fresh;
        active[i] = find_prompt(e, prompt, &fresh);
        if (!fresh) continue;
        int P = ragged_length(&e->q->prompts, prompt);
        if (n_list && rows + P > e->prefill_rows) {
            TRY(run_prefill(e, list, n_list));
            n_list = rows = 0;
        }
        list[n_list++] = active[i];
        rows += P;
    }
    if (n_list) TRY(run_prefill(e, list, n_list));
    e->out->prefill_seconds += clock_seconds() - start;
    for (int i = 0; i < n_new; i++) TRY(open_slot(e, active[i], copies, copies + e->S, &n_copies));
    int32_t *ids = (int32_t *)e->device;
    if (n_copies) {
        memmove(copies + n_copies, copies + e->S, (size_t)n_copies * sizeof *copies);
        TRY(device_upload(&m->device, ids, copies, 2 * (size_t)n_copies * sizeof *copies));
        TRY(kv_copy_pages(e->kv, ids, ids + n_copies, n_copies));
    }
    TRY(device_upload(&m->device, ids, active, (size_t)n_new * sizeof *active));
    TRY(op_gather_rows(&m->device, e->acts->hidden, e->first_hidden, ids, n_new, m->config.d_model));
    return draw_first(e, first);
}

/* -- the loop -------------------------------------------------------------------------------------------------------------------- */

static int report(struct engine *e) {
    double now = clock_seconds();
    if (!e->q->progress || (now - e->last_report < 0.2 && e->finished < e->n_sequences)) return OK;
    e->last_report = now;
    return e->q->progress(e->q->progress_arg, e->tokens, e->finished) ? E_INTERRUPT : OK;
}

static int run(struct engine *e) {
    double start = clock_seconds();
    while (e->finished < e->n_sequences) {
        if (e->n_slots < e->S && e->next < e->n_sequences) TRY(admit(e));
        if (e->n_slots) TRY(decode_window(e));
        TRY(report(e));
        TRY(poll_interrupt());
    }
    e->out->decode_seconds = clock_seconds() - start - e->out->prefill_seconds;
    return OK;
}

int rollout(struct inference *r, struct rollout_result *out, const struct rollout_request *q) {
    struct model *m = r->m;
    TRY(check_request(q, &m->config));
    struct engine e = {.m = m, .q = q, .out = out, .n_sequences = q->prompts.n * q->num_generations};
    if (!e.n_sequences) return OK;
    int prompt_length = 0;
    for (int i = 0; i < q->prompts.n; i++) prompt_length = max_int(prompt_length, ragged_length(&q->prompts, i));
    measure(&e, m->device.ops, min_int(q->slots, e.n_sequences), q->prompts.n, prompt_length);
    out->prefill_seconds = out->decode_seconds = 0;
    int status = engine_start(&e, r);
    if (!status) status = run(&e);
    for (int i = 0; i < e.n_sequences && !status; i++)
        out->kept[i] = e.kept && e.kept->prompt_row[i / q->num_generations] >= 0 ? e.kept->first_id + i : -1;
    engine_free(&e);
    return status;
}
