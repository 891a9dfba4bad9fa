#include "rl/rollout.h"
#include "model/kept.h"
#include "model/profile.h"

#include <stdlib.h>

enum { SLOTS_MAX = 4096,
       SEQUENCES_MAX = 1 << 24,
       PREFILL_ROWS = 2048,      /* prompts prefilled together, in rows; a longer prompt goes alone */
       STOP_TAIL = 256 };        /* bytes of text kept for stop strings; longest stop string */

/* A prompt with unfinished completions: its KV pages; its entry's row of first_hidden predicts every first token. */
struct active_prompt { int prompt, unfinished; int32_t *pages; int n_pages; };

/* A live completion. Pages before `own` belong to its prompt. */
struct slot { int sequence, active, own, n_pages, length; int32_t last; uint32_t t; char tail[STOP_TAIL]; int tail_n; };

struct engine {
    struct model *m;
    struct activations *acts;             /* prefill and decode take turns */
    struct batch *batch;
    struct kv *kv;
    struct kept *kept;                    /* NULL: nothing is */
    const struct rollout_request *q;
    struct rollout_result *out;
    int n_sequences, next, finished, S, n_slots, max_pages, prompt_max;
    struct slot *slots;                   /* (S), the first n_slots are live */
    struct active_prompt *prompts;        /* (S) */
    int32_t *free_pages, n_free;
    int prefill_rows;
    real *first_hidden;                   /* (S, d) of active prompt i */
    int32_t *page_table;                  /* HOST (S, max_pages) */
    int32_t *host, *device;               /* staging of a decode step: ids, pos, place, length, keep (S each), then pages */
    int32_t *place, *keep;                /* backend, prefill rows: where keys and values go, where activations go */
    struct sample_key *keys;              /* (S) */
    struct sampled *drawn;                /* (S) */
    uint8_t *forbidden, *seen;            /* backend: (V), (S, V) */
    int64_t tokens;
    double last_report;
};

static int pages_of(int positions) { return ceil_div(positions, KV_TILE); }

static int kv_pages_needed(int slots, int prompt_length, int max_new_tokens) {
    /* every slot its own tail and, in the worst case (one straggler a group), its own prompt */
    return slots * (pages_of(prompt_length + max_new_tokens) + pages_of(prompt_length));
}

/* Rows of the largest batch: prompts prefilled together. */
static int prefill_rows_of(int slots, int prompt_length) {
    int64_t all = (int64_t)slots * prompt_length;
    int most = max_int(PREFILL_ROWS, prompt_length);
    return all < most ? (int)all : most;
}

size_t rollout_bytes(const struct ops *ops, const struct config *c, int slots, int prompt_length, int max_new_tokens) {
    int rows = max_int(slots, prefill_rows_of(slots, prompt_length));
    return kv_bytes(ops, c, kv_pages_needed(slots, prompt_length, max_new_tokens)) + activations_bytes(ops, c, KEEP_NONE, rows, slots);
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

static int engine_alloc(struct engine *e, struct inference *r) {
    struct model *m = e->m;
    const struct ops *ops = m->ops;
    const struct config *c = &m->config;
    size_t S = (size_t)e->S, V = (size_t)c->vocab_size;
    int n_pages = kv_pages_needed(e->S, e->prompt_max, e->q->max_new_tokens);
    int prefill_rows = e->prefill_rows = prefill_rows_of(e->S, e->prompt_max);
    size_t staged = S * (5 + (size_t)e->max_pages);
    TRY(reserve_scratch(m, max_int(prefill_rows, e->S), e->S, e->S, e->S, e->prompt_max + e->q->max_new_tokens));
    TRY(inference_reserve(r, max_int(prefill_rows, e->S), e->S, e->S, n_pages));
    e->acts = &r->acts;
    e->batch = &r->batch;
    e->kv = &r->kv;
    e->slots = calloc(S, sizeof *e->slots);
    e->prompts = calloc(S, sizeof *e->prompts);
    e->free_pages = malloc((size_t)n_pages * sizeof(int32_t));
    e->page_table = calloc(S * (size_t)e->max_pages, sizeof(int32_t));
    e->host = calloc(staged + (size_t)prefill_rows * 2, sizeof(int32_t));
    e->keys = calloc(S, sizeof *e->keys);
    e->drawn = calloc(S, sizeof *e->drawn);
    e->device = ops->alloc(m->ctx, staged * sizeof(int32_t));
    e->place = ops->alloc(m->ctx, (size_t)prefill_rows * sizeof(int32_t));
    e->keep = ops->alloc(m->ctx, (size_t)prefill_rows * sizeof(int32_t));
    e->first_hidden = ops->alloc(m->ctx, S * (size_t)c->d_model * (size_t)ops->real_size);
    if (e->q->n_forbidden) e->forbidden = ops->alloc(m->ctx, V);
    if (e->q->sampler.repetition_penalty != 1) e->seen = ops->alloc(m->ctx, S * V);
    if (!e->slots || !e->prompts || !e->free_pages || !e->page_table || !e->host || !e->keys || !e->drawn || !e->device || !e->place || !e->keep ||
        !e->first_hidden || (e->q->n_forbidden && !e->forbidden) || (e->q->sampler.repetition_penalty != 1 && !e->seen))
        return fail(E_MEMORY, "no memory for %d rollout slots", e->S);
    if (e->q->keep_rows) {
        TRY(kept_begin(m, e->q->prompts.n, e->q->num_generations, e->q->max_new_tokens - 1, e->q->keep_rows, e->S));
        e->kept = m->kept;
    }
    for (int i = 0; i < n_pages; i++) e->free_pages[e->n_free++] = n_pages - 1 - i;
    for (int i = 0; i < e->S; i++) {
        e->prompts[i].pages = calloc((size_t)pages_of(e->prompt_max), sizeof(int32_t));
        if (!e->prompts[i].pages) return fail(E_MEMORY, "no memory for %d rollout slots", e->S);
    }
    const uint8_t one = 1;
    for (int i = 0; i < e->q->n_forbidden; i++) TRY(ops->upload(m->ctx, e->forbidden + e->q->forbidden_ids[i], &one, 1));
    return OK;
}

static void engine_free(struct engine *e) {
    const struct ops *ops = e->m->ops;
    void *ctx = e->m->ctx;
    ops->release(ctx, e->device);
    ops->release(ctx, e->place);
    ops->release(ctx, e->keep);
    ops->release(ctx, e->first_hidden);
    ops->release(ctx, e->forbidden);
    ops->release(ctx, e->seen);
    for (int i = 0; e->prompts && i < e->S; i++) free(e->prompts[i].pages);
    free(e->slots);
    free(e->prompts);
    free(e->free_pages);
    free(e->page_table);
    free(e->host);
    free(e->keys);
    free(e->drawn);
}

/* -- one completion's text ------------------------------------------------------------------------------------------ */

/* Adds the token's bytes to the slot's tail; true when the text now holds a stop string. */
static int hits_stop_string(struct slot *s, const struct rollout_request *q, int32_t id) {
    if (!q->n_stop_strings) return 0;
    for (int64_t k = q->token_offset[id]; k < q->token_offset[id + 1]; k++) {
        if (s->tail_n == STOP_TAIL) memmove(s->tail, s->tail + 1, (size_t)--s->tail_n);
        s->tail[s->tail_n++] = q->token_bytes[k];
        for (int i = 0; i < q->n_stop_strings; i++) {
            int n = (int)(q->stop_offset[i + 1] - q->stop_offset[i]);
            if (n <= s->tail_n && !memcmp(s->tail + s->tail_n - n, q->stop_bytes + q->stop_offset[i], (size_t)n)) return 1;
        }
    }
    return 0;
}

static int is_stop_id(const struct rollout_request *q, int32_t id) {
    for (int i = 0; i < q->n_stop; i++)
        if (q->stop_ids[i] == id) return 1;
    return 0;
}

static int mark_seen(struct engine *e, int slot, const int32_t *ids, int n) {
    if (!e->seen) return OK;
    const uint8_t one = 1;
    uint8_t *row = e->seen + (size_t)slot * (size_t)e->m->config.vocab_size;
    for (int i = 0; i < n; i++) TRY(e->m->ops->upload(e->m->ctx, row + ids[i], &one, 1));
    return OK;
}

/* -- slots and pages --------------------------------------------------------------------------------------------------- */

static void release_prompt(struct engine *e, struct active_prompt *p) {
    if (--p->unfinished) return;
    for (int i = 0; i < p->n_pages; i++) e->free_pages[e->n_free++] = p->pages[i];
    p->n_pages = 0;
}

/* The last live slot takes the place of the one that ended. */
static int end_slot(struct engine *e, int i) {
    struct slot *s = &e->slots[i];
    int32_t *table = e->page_table + (size_t)i * (size_t)e->max_pages;
    for (int k = s->own; k < s->n_pages; k++) e->free_pages[e->n_free++] = table[k];
    if (e->kept) kept_end(e->kept, s->sequence);
    release_prompt(e, &e->prompts[s->active]);
    int last = --e->n_slots;
    if (i != last) {
        size_t V = (size_t)e->m->config.vocab_size;
        *s = e->slots[last];
        memcpy(table, e->page_table + (size_t)last * (size_t)e->max_pages, (size_t)e->max_pages * sizeof *table);
        if (e->seen) TRY(e->m->ops->copy(e->m->ctx, e->seen + (size_t)i * V, e->seen + (size_t)last * V, V));
    }
    e->finished++;
    return OK;
}

/* Records what was drawn for slots [first, n_slots); ends those that are done. */
static int take_drawn(struct engine *e, int first) {
    const struct rollout_request *q = e->q;
    size_t width = (size_t)q->max_new_tokens;
    for (int i = e->n_slots - 1; i >= first; i--) {
        struct slot *s = &e->slots[i];
        struct sampled *d = &e->drawn[i - first];
        if (d->id < 0)
            return fail(E_NONFINITE, "the logits of prompt %d, completion %d are not finite at token %u", s->sequence / q->num_generations,
                        s->sequence % q->num_generations, s->t);
        size_t at = (size_t)s->sequence * width + s->t;
        e->out->tokens[at] = s->last = d->id;
        e->out->logp[at] = d->logp;
        e->out->policy_logp[at] = d->policy_logp;
        e->out->entropy[at] = d->entropy;
        e->out->length[s->sequence] = (int32_t)++s->t;
        e->tokens++;
        TRY(mark_seen(e, i, &d->id, 1));
        int stop_string = hits_stop_string(s, q, d->id), stop_id = is_stop_id(q, d->id);
        if (!stop_id && !stop_string && s->t < (uint32_t)q->max_new_tokens) continue;
        e->out->finish[s->sequence] = stop_id ? FINISH_STOP_ID : stop_string ? FINISH_STOP_STRING : FINISH_LENGTH;
        TRY(end_slot(e, i));
    }
    return OK;
}

static int draw(struct engine *e, const real *hidden, int first) {
    struct model *m = e->m;
    const struct rollout_request *q = e->q;
    int n = e->n_slots - first;
    struct sampler sampler = q->sampler;
    sampler.forbidden = e->forbidden;
    sampler.seen = e->seen ? e->seen + (size_t)first * (size_t)m->config.vocab_size : NULL;
    for (int i = 0; i < n; i++) {
        const struct slot *s = &e->slots[first + i];
        e->keys[i] = (struct sample_key){
            .prompt = q->first_prompt + (uint32_t)(s->sequence / q->num_generations), .sample = (uint32_t)(s->sequence % q->num_generations),
            .position = s->t, .no_stop = s->t < (uint32_t)max_int(0, q->min_new_tokens)};
    }
    TRY(RUN(m, sample, e->drawn, hidden, text_head_weight(m), &sampler, e->keys, q->stop_ids, q->n_stop, n, m->config.d_model,
                       m->config.vocab_size));
    return take_drawn(e, first);
}

/* -- prefill --------------------------------------------------------------------------------------------------------------- */

/* Packs prompts of the active entries list[0..n) and keeps keys, values and the last hidden state of each. */
static int run_prefill(struct engine *e, const int *list, int n) {
    struct model *m = e->m;
    const struct ops *ops = m->ops;
    const struct config *c = &m->config;
    int rows = e->prefill_rows, N = 0;
    int32_t *ids = e->host, *pos = e->host + rows, *place = calloc(2 * (size_t)rows + 5 * (size_t)n, sizeof *place);
    if (!place) return fail(E_MEMORY, "no memory to prefill %d prompts", n);
    int32_t *keep = place + rows, *last = keep + rows;
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
    int status = ops->upload(m->ctx, b->ids, ids, (size_t)N * sizeof *ids);
    if (!status) status = ops->upload(m->ctx, b->pos, pos, (size_t)N * sizeof *pos);
    if (!status) status = ops->upload(m->ctx, e->place, place, (size_t)N * sizeof *place);
    if (!status) status = ops->upload(m->ctx, b->rows, last, (size_t)n * sizeof *last);
    if (!status) status = ops->upload(m->ctx, b->segments, segments, (size_t)n * sizeof *segments);
    struct keeper keeper = {.rows = e->keep};
    if (!status && e->kept) {
        keeper.store = &e->kept->store;
        status = ops->upload(m->ctx, e->keep, keep, (size_t)N * sizeof *keep);
    }
    if (!status) status = text_forward(e->acts, b, e->kv, e->place, e->kept ? &keeper : NULL);
    size_t row = (size_t)c->d_model * (size_t)ops->real_size;
    for (int k = 0; k < n && !status; k++)
        status = ops->copy(m->ctx, (char *)e->first_hidden + (size_t)list[k] * row, (char *)e->acts->hidden + (size_t)k * row, row);
    free(place);
    return status;
}

/* Entry of the prompt among the active ones; or a free entry, which gets its pages and must be prefilled (fresh). Sequences
   start in order, so every entry but the newest has a live slot: S entries suffice. */
static int find_prompt(struct engine *e, int prompt, int *fresh) {
    int empty = -1;
    *fresh = 0;
    for (int i = 0; i < e->S; i++) {
        if (e->prompts[i].unfinished && e->prompts[i].prompt == prompt) return i;
        if (!e->prompts[i].unfinished && empty < 0) empty = i;
    }
    struct active_prompt *p = &e->prompts[empty];
    p->prompt = prompt;
    p->unfinished = e->q->num_generations;
    p->n_pages = pages_of(ragged_length(&e->q->prompts, prompt));
    for (int k = 0; k < p->n_pages; k++) p->pages[k] = e->free_pages[--e->n_free];
    *fresh = 1;
    return empty;
}

/* A slot for the next sequence; the prompt's last, partly filled page is copied, since completions write into it. */
static int open_slot(struct engine *e, int active, int32_t *copy_dst, int32_t *copy_src, int *n_copies) {
    struct active_prompt *p = &e->prompts[active];
    struct slot *s = &e->slots[e->n_slots];
    int32_t *table = e->page_table + (size_t)e->n_slots * (size_t)e->max_pages;
    int P = ragged_length(&e->q->prompts, p->prompt);
    *s = (struct slot){.sequence = e->next++, .active = active, .own = P / KV_TILE, .length = P};
    memcpy(table, p->pages, (size_t)s->own * sizeof *table);
    s->n_pages = s->own;
    if (P % KV_TILE) {
        table[s->n_pages++] = e->free_pages[--e->n_free];
        copy_dst[*n_copies] = table[s->own];
        copy_src[(*n_copies)++] = p->pages[s->own];
    }
    if (e->seen) {
        size_t V = (size_t)e->m->config.vocab_size;
        TRY(e->m->ops->zero(e->m->ctx, e->seen + (size_t)e->n_slots * V, V));
        TRY(mark_seen(e, e->n_slots, e->q->prompts.ids + e->q->prompts.offset[p->prompt], P));
    }
    e->n_slots++;
    return OK;
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
    if (n_copies) {
        memmove(copies + n_copies, copies + e->S, (size_t)n_copies * sizeof *copies);
        TRY(m->ops->upload(m->ctx, e->device, copies, 2 * (size_t)n_copies * sizeof *copies));
        TRY(kv_copy_pages(e->kv, e->device, e->device + n_copies, n_copies));
    }
    TRY(m->ops->upload(m->ctx, e->device, active, (size_t)n_new * sizeof *active));
    TRY(RUN(m, gather_rows, e->acts->hidden, e->first_hidden, e->device, n_new, m->config.d_model));
    return draw(e, e->acts->hidden, first);
}

/* -- decode ------------------------------------------------------------------------------------------------------------------- */

static int decode_step(struct engine *e) {
    struct model *m = e->m;
    int n = e->n_slots, width = e->max_pages;
    int32_t *ids = e->host, *pos = ids + n, *place = pos + n, *length = place + n, *keep = length + n, *pages = keep + n;
    for (int i = 0; i < n; i++) {
        struct slot *s = &e->slots[i];
        int32_t *table = e->page_table + (size_t)i * (size_t)width;
        if (s->length / KV_TILE == s->n_pages) table[s->n_pages++] = e->free_pages[--e->n_free];
        ids[i] = s->last;
        pos[i] = s->length;
        place[i] = table[s->length / KV_TILE] * KV_TILE + s->length % KV_TILE;
        length[i] = ++s->length;
        int32_t kept = e->kept ? kept_token(e->kept, s->sequence) : -1;
        keep[i] = kept < 0 ? i : kept;
        memcpy(pages + (size_t)i * (size_t)width, table, (size_t)width * sizeof *table);
    }
    int32_t *d = e->device;
    TRY(m->ops->upload(m->ctx, d, e->host, (size_t)n * (5 + (size_t)width) * sizeof *d));
    struct keeper keeper = {.rows = d + 4 * n};
    if (e->kept) keeper.store = &e->kept->store;
    TRY(text_decode(e->acts, e->kv, d, d + n, d + 2 * n, d + 5 * n, d + 3 * n, n, width, e->kept ? &keeper : NULL));
    return draw(e, e->acts->hidden, 0);
}

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
        if (e->n_slots) TRY(decode_step(e));
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
    e.S = min_int(q->slots, e.n_sequences);
    for (int i = 0; i < q->prompts.n; i++) e.prompt_max = max_int(e.prompt_max, ragged_length(&q->prompts, i));
    e.max_pages = pages_of(e.prompt_max + q->max_new_tokens);
    out->prefill_seconds = out->decode_seconds = 0;
    int status = engine_alloc(&e, r);
    if (!status) status = run(&e);
    for (int i = 0; i < e.n_sequences && !status; i++)
        out->kept[i] = e.kept && e.kept->prompt_row[i / q->num_generations] >= 0 ? e.kept->first_id + i : -1;
    engine_free(&e);
    return status;
}
