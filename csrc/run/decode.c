/* Decode, a window of steps at a time. All that a step needs but its tokens is known before the window begins:
   positions, places of keys, random numbers. So the tables of all steps go to the device at once, each step takes
   its tokens from the step before there, and the host looks at what was drawn when the window is over. Steps that
   ran past the end of a completion cost their time and nothing else: their keys lie beyond what anyone reads, their
   draws are not taken. */
#include "run/decode.h"

#include <assert.h>

#include "base/base.h"

/* A step's table of n rows: int32 place, length, stored (n each), keys (n), then int32 positions (axes, n). */
struct table {
    int32_t *place, *length, *stored;
    struct sample_key *keys;
    int32_t *positions;
};

/* A multiple of the alignment of a key */
static size_t table_bytes(const struct sequences *s, int n) {
    size_t numbers = 3 + (size_t)s->axes;
    return ((size_t)n * (numbers * sizeof(int32_t) + sizeof(struct sample_key)) + 7) & ~(size_t)7;
}

static struct table table_at(char *at, int n) {
    struct sample_key *keys = (struct sample_key *)at;
    int32_t *place = (int32_t *)(keys + n);
    return (struct table){place, place + n, place + 2 * n, keys, place + 3 * n};
}

/* What lies where, for n rows. steps, next and pages come from the host at once; the rest is the device's. */
struct window {
    char *steps;                          /* (lookahead) tables */
    int32_t *next, *pages;                /* (n) tokens to run, in time drawn by the step before; (n, max_pages) */
    char *now;                            /* the table of the step that runs: a recorded step knows one address */
    struct sampled *drawn, *all;          /* (n) by that step; (lookahead, n) */
};

static struct window window_at(char *base, const struct sequences *s, int n) {
    struct window w = {.steps = base};
    size_t rows = (size_t)n, steps = (size_t)s->lookahead;
    w.next = (int32_t *)(base + steps * table_bytes(s, n));
    w.pages = w.next + rows;
    w.now = base + ((size_t)((char *)(w.pages + rows * (size_t)s->max_pages) - base) + 63) / 64 * 64;
    w.drawn = (struct sampled *)(w.now + table_bytes(s, n));
    w.all = w.drawn + rows;
    return w;
}

size_t window_bytes(const struct sequences *s) {
    size_t rows = (size_t)s->config.slots, steps = (size_t)s->lookahead;
    return (steps + 1) * (table_bytes(s, s->config.slots) + rows * sizeof(struct sampled)) +
           rows * (1 + (size_t)s->max_pages) * sizeof(int32_t) + 64;
}

static struct sample_key key_of(const struct sequences *s, const struct sequence *q, int position) {
    return (struct sample_key){.seed = s->config.seed,
                               .step = s->config.step,
                               .prompt = q->prompt_key,
                               .sample = (uint32_t)q->sample,
                               .position = (uint32_t)position,
                               .no_stop = position < s->config.min_new_tokens};
}

static int sample_window(struct sequences *s, const struct window *w, int first, int n) {
    struct drawing drawing = {w->drawn, w->next, seen_by(s, first), &s->sampler, table_at(w->now, n).keys};
    return text_sample(&s->session->acts, &drawing, n);
}

int draw_first(struct sequences *s, int first) {
    const struct device *d = &s->session->weights->device;
    int n = s->n_live - first;
    struct window w = window_at(s->window, s, n);
    struct sample_key *keys = table_at(s->host, n).keys;
    for (int i = 0; i < n; i++) keys[i] = key_of(s, &s->live[first + i], 0);
    TRY(device_upload(d, table_at(w.now, n).keys, keys, (size_t)n * sizeof *keys));
    TRY(sample_window(s, &w, first, n));
    return device_download(d, s->drawn, w.drawn, (size_t)n * sizeof *s->drawn);
}

/* -- tables -------------------------------------------------------------------------------------------------------- */

/* Rows of a step for n sequences. Where steps are recorded, few numbers of rows serve all: the weights, most of what
   a step reads, are read once for any of them, and an idle row reads one key. */
static int rows_for(const struct sequences *s, int n) {
    int rows = 1;
    if (s->lookahead == 1) return n;
    while (rows < n && rows < 32) rows *= 2;
    return min_int(s->config.slots, round_up(n, rows));
}

static int steps_for(const struct sequences *s) {
    int most = 0;
    for (int i = 0; i < s->n_live; i++) most = max_int(most, s->config.max_new_tokens - s->live[i].length);
    return min_int(most, s->lookahead);
}

/* Row i runs token 0 at position 0 and stores nothing: beyond the live ones, or beyond a completion's last possible
   token. */
static void fill_idle(const struct sequences *s, struct table t, int i, int n) {
    for (int axis = 0; axis < s->axes; axis++) t.positions[axis * n + i] = 0;
    t.place[i] = -1;
    t.length[i] = 1;
    t.stored[i] = s->store ? s->store->spare_rows[i] : 0;
    t.keys[i] = (struct sample_key){0};
}

/* Row i of n runs the token before number `at` of sequence i. */
static void fill_row(struct sequences *s, struct table t, int i, int n, int at) {
    struct sequence *q = &s->live[i];
    const struct open_group *g = &s->groups[q->group];
    int32_t *pages = pages_of_slot(s, i), position = g->places.length + at - 1;
    if (position / KV_TILE == q->n_pages) pages[q->n_pages++] = take_page(s);
    assert(position / KV_TILE < q->n_pages && q->n_pages <= s->max_pages);
    for (int axis = 0; axis < s->axes; axis++)
        t.positions[axis * n + i] = position_of(&s->session->weights->spec, &g->places, position, axis);
    t.place[i] = pages[position / KV_TILE] * KV_TILE + position % KV_TILE;
    t.length[i] = position + 1;
    t.stored[i] = g->stored ? store_token(s->store, g->stored, q->sample) : s->store ? s->store->spare_rows[i] : 0;
    t.keys[i] = key_of(s, q, at);
}

static int upload_tables(struct sequences *s, const struct window *device, int steps, int n) {
    struct window host = window_at(s->host, s, n);
    size_t width = (size_t)s->max_pages * sizeof(int32_t);
    for (int k = 0; k < steps; k++) {
        struct table t = table_at(host.steps + (size_t)k * table_bytes(s, n), n);
        for (int i = 0; i < n; i++) {
            int at = i < s->n_live ? s->live[i].length + k : s->config.max_new_tokens;
            if (at < s->config.max_new_tokens) fill_row(s, t, i, n, at);
            else fill_idle(s, t, i, n);
        }
    }
    for (int i = 0; i < n; i++) host.next[i] = i < s->n_live ? s->live[i].last : 0;
    memcpy(host.pages, s->page_table, (size_t)s->n_live * width);
    memset((char *)host.pages + (size_t)s->n_live * width, 0, (size_t)(n - s->n_live) * width);
    size_t bytes = (size_t)((char *)(host.pages + (size_t)n * (size_t)s->max_pages) - host.steps);
    return device_upload(&s->session->weights->device, device->steps, host.steps, bytes);
}

/* -- steps --------------------------------------------------------------------------------------------------------- */

static int issue_step(struct sequences *s, const struct window *w, int n) {
    struct session *session = s->session;
    struct table now = table_at(w->now, n);
    struct key_pages keys = {
        .pages = w->pages, .length = now.length, .max_pages = s->max_pages, .shared_pages = s->shared_pages};
    struct rows rows = {.N = n,
                        .ids = w->next,
                        .positions = now.positions,
                        .keys = &keys,
                        .cache = &session->cache,
                        .place = now.place};
    struct stash_rows copy = {s->store ? &s->store->stash : NULL, now.stored};
    TRY(text_decode(&session->acts, &rows, s->store ? &copy : NULL));
    return sample_window(s, w, 0, n);
}

/* All that decides what issue_step() passes to the backend, beside the model. Without padding: it is compared as
   bytes. */
struct step_key {
    const void *window, *acts, *cache, *seen, *store;
    struct sampler sampler;
    int rows, lookahead, max_pages, acts_rows, head_rows, n_pages, shared_pages;
    int store_rows;                       /* below 0: inputs alone */
};
_Static_assert(sizeof(struct step_key) == 5 * sizeof(void *) + sizeof(struct sampler) + 8 * sizeof(int), "no padding");
_Static_assert(sizeof(struct sampler) == 4 * sizeof(float) + 2 * sizeof(int) + 2 * sizeof(void *), "nor in a sampler");

static int decode_step(struct sequences *s, const struct window *w, int n) {
    const struct session *session = s->session;
    const struct device *d = &session->weights->device;
    const struct store *store = s->store;
    struct step_key key = {
        .window = w->steps,
        .acts = session->acts.stash.out,
        .cache = session->cache.memory,
        .seen = s->seen,
        .store = store ? store->stash.out : NULL,
        .sampler = s->sampler,
        .rows = n,
        .lookahead = s->lookahead,
        .max_pages = s->max_pages,
        .acts_rows = session->acts.rows_max,
        .head_rows = session->acts.head_rows_max,
        .n_pages = session->cache.n_pages,
        .shared_pages = s->shared_pages,
        .store_rows = !store                           ? 0
                      : store->stash.what == STASH_ALL ? store->capacity
                                                       : -store->capacity,
    };
    int done;
    if (profile_on) return issue_step(s, w, n); /* which waits for each operation */
    TRY(device_replay(d, &key, sizeof key, &done));
    return done ? OK : device_record_end(d, issue_step(s, w, n));
}

int sequences_extend(struct sequences *s, int *steps, int *width) {
    const struct device *d = &s->session->weights->device;
    int n = rows_for(s, s->n_live);
    assert(s->n_live > 0 && s->n_live <= n && n <= s->config.slots);
    size_t rows = (size_t)n, drawn_bytes = rows * sizeof *s->drawn;
    struct window w = window_at(s->window, s, n);
    *steps = steps_for(s);
    *width = n;
    TRY(upload_tables(s, &w, *steps, n));
    for (int k = 0; k < *steps; k++) {
        TRY(op_copy(d, w.now, w.steps + (size_t)k * table_bytes(s, n), table_bytes(s, n)));
        TRY(decode_step(s, &w, n));
        TRY(op_copy(d, w.all + (size_t)k * rows, w.drawn, drawn_bytes));
    }
    return device_download(d, s->drawn, w.all, (size_t)*steps * drawn_bytes);
}
