/* Decode, a window of steps at a time. All that a step needs but its tokens is known before the window begins: positions,
   places of keys, random numbers. So the tables of all steps go to the device at once, each step takes its tokens from the
   step before there, and the host looks at what was drawn when the window is over. Steps that ran past the end of a
   completion cost their time and nothing else: their keys lie beyond what anyone reads, their draws are not taken. */
#include "rl/engine.h"
#include "ops/device.h"

/* A step's table of n rows: int32 pos, place, length, keep (n each), then keys (n). */
struct row { int32_t *pos, *place, *length, *keep; struct sample_key *keys; };

static size_t row_bytes(int n) { return (size_t)n * (4 * sizeof(int32_t) + sizeof(struct sample_key)); }

static struct row row_at(char *at, int n) {
    int32_t *first = (int32_t *)at;
    return (struct row){first, first + n, first + 2 * n, first + 3 * n, (struct sample_key *)(first + 4 * n)};
}

/* What lies where, for n rows. steps, next and pages come from the host at once; the rest is the device's. */
struct window {
    char *steps;                          /* (lookahead) tables */
    int32_t *next, *pages;                /* (n) tokens to run, in time drawn by the step before; (n, max_pages) */
    char *now;                            /* the table of the step that runs: a recorded step has one address for all */
    struct sampled *drawn, *all;          /* (n) by that step; (lookahead, n) */
};

static struct window window_at(char *base, const struct engine *e, int n) {
    struct window w = {.steps = base};
    size_t rows = (size_t)n, steps = (size_t)e->lookahead;
    w.next = (int32_t *)(base + steps * row_bytes(n));
    w.pages = w.next + rows;
    w.now = base + ((size_t)((char *)(w.pages + rows * (size_t)e->max_pages) - base) + 63) / 64 * 64;
    w.drawn = (struct sampled *)(w.now + row_bytes(n));
    w.all = w.drawn + rows;
    return w;
}

size_t window_bytes(const struct engine *e) {
    size_t rows = (size_t)e->S, steps = (size_t)e->lookahead;
    return (steps + 1) * (row_bytes(e->S) + rows * sizeof(struct sampled)) + rows * (1 + (size_t)e->max_pages) * sizeof(int32_t) + 64;
}

static struct sample_key key_of(const struct engine *e, const struct slot *s, int t) {
    const struct rollout_request *q = e->q;
    return (struct sample_key){.seed = q->seed, .step = q->step, .prompt = q->first_prompt + (uint32_t)(s->sequence / q->num_generations),
                               .sample = (uint32_t)(s->sequence % q->num_generations), .position = (uint32_t)t,
                               .no_stop = t < q->min_new_tokens};
}

static int sample_window(struct engine *e, const struct window *w, int first, int n) {
    struct model *m = e->m;
    return op_sample(&m->device, w->drawn, w->next, seen_by(e, first), e->acts->hidden, text_head_weight(m), &e->sampler, row_at(w->now, n).keys, n,
               m->config.d_model, m->config.vocab_size);
}

int draw_first(struct engine *e, int first) {
    int n = e->n_slots - first;
    struct window w = window_at(e->device, e, n);
    struct sample_key *keys = row_at(e->host, n).keys;
    for (int i = 0; i < n; i++) keys[i] = key_of(e, &e->slots[first + i], 0);
    TRY(device_upload(&e->m->device, row_at(w.now, n).keys, keys, (size_t)n * sizeof *keys));
    TRY(sample_window(e, &w, first, n));
    TRY(device_download(&e->m->device, e->drawn, w.drawn, (size_t)n * sizeof *e->drawn));
    return take_drawn(e, first, 1, n);
}

/* -- tables ----------------------------------------------------------------------------------------------------------- */

/* Rows of a step for n slots. Where steps are recorded, few numbers of rows serve all: the weights, most of what a step
   reads, are read once for any of them, and an idle row reads one key. */
static int rows_for(const struct engine *e, int n) {
    int rows = 1;
    if (e->lookahead == 1) return n;
    while (rows < n && rows < 32) rows *= 2;
    return min_int(e->S, round_up(n, rows));
}

static int steps_for(const struct engine *e) {
    int most = 0;
    for (int i = 0; i < e->n_slots; i++) most = max_int(most, e->q->max_new_tokens - e->slots[i].t);
    return min_int(most, e->lookahead);
}

/* Row i runs token 0 at position 0 and stores nothing: beyond the slots, or beyond a completion's last possible token. */
static void fill_idle(struct row r, int i) {
    r.pos[i] = 0;
    r.place[i] = -1;
    r.length[i] = 1;
    r.keep[i] = i;                        /* a spare row of the store */
    r.keys[i] = (struct sample_key){0};
}

static void fill_slot(struct engine *e, struct row r, int i, int t) {
    struct slot *s = &e->slots[i];
    int32_t *table = pages_of_slot(e, i), position = s->prompt_length + t - 1, kept = e->kept ? kept_token(e->kept, s->sequence) : -1;
    if (position / KV_TILE == s->n_pages) table[s->n_pages++] = take_page(e);
    r.pos[i] = position;
    r.place[i] = table[position / KV_TILE] * KV_TILE + position % KV_TILE;
    r.length[i] = position + 1;
    r.keep[i] = kept < 0 ? i : kept;
    r.keys[i] = key_of(e, s, t);
}

static int upload_tables(struct engine *e, const struct window *device, int steps, int n) {
    struct window host = window_at(e->host, e, n);
    size_t width = (size_t)e->max_pages * sizeof(int32_t);
    for (int k = 0; k < steps; k++) {
        struct row r = row_at(host.steps + (size_t)k * row_bytes(n), n);
        for (int i = 0; i < n; i++) {
            int t = i < e->n_slots ? e->slots[i].t + k : e->q->max_new_tokens;
            if (t < e->q->max_new_tokens) fill_slot(e, r, i, t);
            else fill_idle(r, i);
        }
    }
    for (int i = 0; i < n; i++) host.next[i] = i < e->n_slots ? e->slots[i].last : 0;
    memcpy(host.pages, e->page_table, (size_t)e->n_slots * width);
    memset((char *)host.pages + (size_t)e->n_slots * width, 0, (size_t)(n - e->n_slots) * width);
    return device_upload(&e->m->device, device->steps, host.steps, (size_t)((char *)(host.pages + (size_t)n * (size_t)e->max_pages) - host.steps));
}

/* -- steps ------------------------------------------------------------------------------------------------------------ */

static int issue_step(struct engine *e, const struct window *w, int n) {
    struct row now = row_at(w->now, n);
    struct keeper keeper = {.rows = now.keep};
    if (e->kept) keeper.store = &e->kept->store;
    TRY(text_decode(e->acts, e->kv, w->next, now.pos, now.place, w->pages, now.length, n, e->max_pages, e->shared_pages,
                    e->kept ? &keeper : NULL));
    return sample_window(e, w, 0, n);
}

/* All that decides what issue_step() passes to the backend, beside the model. Without padding: it is compared as bytes. */
struct step_key {
    const void *window, *acts, *kv, *seen, *store;
    struct sampler sampler;
    int rows, lookahead, max_pages, acts_rows, head_rows, n_pages, shared_pages, store_rows;        /* store_rows < 0: inputs alone */
};

static int decode_step(struct engine *e, const struct window *w, int n) {
    const struct activations *store = e->kept ? &e->kept->store : NULL;
    struct step_key key = {
        .window = w->steps, .acts = e->acts->out, .kv = e->kv->arena, .seen = e->seen, .store = store ? store->out : NULL,
        .sampler = e->sampler, .rows = n, .lookahead = e->lookahead, .max_pages = e->max_pages, .acts_rows = e->acts->rows_max,
        .head_rows = e->acts->head_rows_max, .n_pages = e->kv->n_pages, .shared_pages = e->shared_pages,
        .store_rows = !store ? 0 : store->keep == KEEP_ROWS ? store->rows_max : -store->rows_max,
    };
    int done;
    if (profile_on) return issue_step(e, w, n);         /* which waits for each operation */
    TRY(device_replay(&e->m->device, &key, sizeof key, &done));
    return done ? OK : device_record_end(&e->m->device, issue_step(e, w, n));
}

int decode_window(struct engine *e) {
    const struct device *d = &e->m->device;
    int n = rows_for(e, e->n_slots), steps = steps_for(e);
    size_t rows = (size_t)n, drawn_bytes = rows * sizeof *e->drawn;
    struct window w = window_at(e->device, e, n);
    TRY(upload_tables(e, &w, steps, n));
    for (int k = 0; k < steps; k++) {
        TRY(op_copy(d, w.now, w.steps + (size_t)k * row_bytes(n), row_bytes(n)));
        TRY(decode_step(e, &w, n));
        TRY(op_copy(d, w.all + (size_t)k * rows, w.drawn, drawn_bytes));
    }
    TRY(device_download(d, e->drawn, w.all, (size_t)steps * drawn_bytes));
    return take_drawn(e, 0, steps, n);
}
