#include "run/sequences.h"

#include <assert.h>
#include <stdlib.h>

#include "base/base.h"

enum {
    PREFILL_ROWS = 2048,      /* prompts prefilled together, in rows; a longer prompt goes alone */
    PROMPT_STEP = 128,        /* positions */
};

/* -- sizes --------------------------------------------------------------------------------------------------------- */

static inline int pages_of(int positions) { return ceil_div(positions, KV_TILE); }

/* Rows of the largest batch: prompts prefilled together. */
static int prefill_rows_of(int prompts, int prompt_length) {
    int64_t all = (int64_t)prompts * prompt_length;
    int most = max_int(PREFILL_ROWS, prompt_length);
    return all < most ? (int)all : most;
}

/* Where steps are recorded, prompts count as up to PROMPT_STEP - 1 longer than they are: the memory of the next
   rollout is then laid out as it was for this one, and the recordings serve again. */
static void measure(struct sequences *s, const struct ops *ops, const struct spec *spec) {
    const struct sequences_config *c = &s->config;
    int tokens = c->max_new_tokens, at_once = min_int(c->slots, c->prompts);
    s->axes = position_axes(spec);
    s->lookahead = max_int(1, min_int(c->lookahead ? c->lookahead : ops->lookahead, tokens - 1));
    s->prompt_max = s->lookahead > 1 ? round_up(c->prompt_length, PROMPT_STEP) : c->prompt_length;
    s->max_pages = pages_of(s->prompt_max + tokens);
    s->shared_pages = c->num_generations > 1 ? s->prompt_max / KV_TILE : 0;
    /* every slot its own tail, which may begin anywhere in a page, and in the worst case (one straggler a group) its
       own prompt */
    s->n_pages = c->slots * pages_of(KV_TILE - 1 + tokens) + at_once * pages_of(s->prompt_max);
    s->prefill_rows = prefill_rows_of(at_once, s->prompt_max);
    s->rows = max_int(s->prefill_rows, c->slots);
}

/* Device memory beside activations and cache; its size */
static size_t lay_out(struct sequences *s, char *base, const struct ops *ops, const struct spec *spec) {
    struct layout memory = {base, 0};
    const struct sequences_config *c = &s->config;
    size_t slots = (size_t)c->slots, V = (size_t)spec->vocab_size;
    s->window = layout_take(&memory, window_bytes(s), 1);
    s->place = layout_take(&memory, (size_t)s->prefill_rows, sizeof(int32_t));
    s->stored = layout_take(&memory, (size_t)s->prefill_rows, sizeof(int32_t));
    s->first_hidden = layout_take(&memory, slots * (size_t)spec->d_model, (size_t)ops->real_size);
    s->stop_ids = layout_take(&memory, (size_t)c->n_stop, sizeof(int32_t));
    if (c->n_forbidden) s->forbidden = layout_take(&memory, V, 1);
    if (c->sampler.repetition_penalty != 1) s->seen = layout_take(&memory, slots * V, 1);
    return memory.at;
}

size_t sequences_bytes(const struct ops *ops, const struct spec *spec, const struct sequences_config *config) {
    struct sequences s = {.config = *config};
    measure(&s, ops, spec);
    return cache_bytes(ops, spec, s.n_pages) + activations_bytes(ops, spec, STASH_NOTHING, s.rows, config->slots) +
           lay_out(&s, NULL, ops, spec);
}

static int vectors_of(const struct sequences *s) { return min_int(s->config.image_tokens, s->prefill_rows); }

int sequences_vectors(const struct ops *ops, const struct spec *spec, const struct sequences_config *config) {
    struct sequences s = {.config = *config};
    measure(&s, ops, spec);
    return vectors_of(&s);
}

/* -- set-up -------------------------------------------------------------------------------------------------------- */

static int allocate_host(struct sequences *s) {
    size_t slots = (size_t)s->config.slots;
    s->live = calloc(slots, sizeof *s->live);
    s->groups = calloc(slots, sizeof *s->groups);
    s->free_pages = malloc((size_t)s->n_pages * sizeof(int32_t));
    s->page_table = calloc(slots * (size_t)s->max_pages, sizeof(int32_t));
    s->host = calloc(1, window_bytes(s));
    s->drawn = calloc(slots * (size_t)s->lookahead, sizeof *s->drawn);
    s->flags = malloc((size_t)s->session->weights->spec.vocab_size);
    int good = s->live && s->groups && s->free_pages && s->page_table && s->host && s->drawn && s->flags;
    for (size_t i = 0; i < slots && good; i++)
        good = (s->groups[i].pages = calloc((size_t)pages_of(s->prompt_max), sizeof(int32_t))) != NULL;
    return good ? OK : fail(E_MEMORY, "no memory for %d rollout slots", s->config.slots);
}

/* dst (V) = 1 at ids, 0 elsewhere */
static int upload_flags(struct sequences *s, uint8_t *dst, const int32_t *ids, int n) {
    const struct weights *w = s->session->weights;
    size_t V = (size_t)w->spec.vocab_size;
    memset(s->flags, 0, V);
    for (int i = 0; i < n; i++) s->flags[ids[i]] = 1;
    return device_upload(&w->device, dst, s->flags, V);
}

static int upload_choices(struct sequences *s) {
    const struct sequences_config *c = &s->config;
    if (s->forbidden) TRY(upload_flags(s, s->forbidden, c->forbidden_ids, c->n_forbidden));
    TRY(device_upload(&s->session->weights->device, s->stop_ids, c->stop_ids, (size_t)c->n_stop * sizeof *c->stop_ids));
    s->sampler = c->sampler;
    s->sampler.forbidden = s->forbidden;
    s->sampler.stop_ids = s->stop_ids;
    s->sampler.n_stop = c->n_stop;
    return OK;
}

static int set_up(struct sequences *s, int store_rows) {
    const struct weights *w = s->session->weights;
    const struct sequences_config *c = &s->config;
    int usable = 0;
    measure(s, w->device.ops, &w->spec);
    struct text_limits need = {.rows = s->rows,
                               .head_rows = c->slots,
                               .slots = c->slots,
                               .segments = c->slots,
                               .positions = c->prompt_length + c->max_new_tokens,
                               .shared_pages = s->shared_pages,
                               .vectors = vectors_of(s)};
    TRY(session_reserve(s->session, &need, s->n_pages, lay_out(s, NULL, w->device.ops, &w->spec)));
    lay_out(s, s->session->rest, w->device.ops, &w->spec);
    TRY(allocate_host(s));
    if (s->store) TRY(store_reserve(s->store, &usable, store_rows, c->slots));
    if (!usable) s->store = NULL;
    for (int i = 0; i < s->n_pages; i++) s->free_pages[s->n_free++] = s->n_pages - 1 - i;
    return upload_choices(s);
}

int sequences_create(struct sequences *s, struct session *session, const struct sequences_config *config,
                     struct store *store, int store_rows) {
    *s = (struct sequences){.session = session, .config = *config, .store = store};
    int status = set_up(s, store_rows);
    if (status) sequences_free(s);
    return status;
}

void sequences_free(struct sequences *s) {
    for (int i = 0; s->groups && i < s->config.slots; i++) {
        struct open_group *g = &s->groups[i];
        if (g->unfinished && g->stored) store_forget(s->store, &g->stored->first_id, 1);
        free(g->pages);
    }
    free(s->live);
    free(s->groups);
    free(s->free_pages);
    free(s->page_table);
    free(s->host);
    free(s->drawn);
    free(s->flags);
    *s = (struct sequences){0};
}

/* -- open ---------------------------------------------------------------------------------------------------------- */

struct prompt prompt_of(const struct spec *spec, const struct ragged *prompts, const struct pictures *pictures, int i) {
    struct prompt p = {.ids = prompts->ids + prompts->offset[i], .places = places_of(spec, prompts, pictures, i)};
    if (!pictures) return p;
    p.tokens = pictures->tokens + pictures->token_offset[i];
    p.n_tokens = (int)(pictures->token_offset[i + 1] - pictures->token_offset[i]);
    p.pictures = pictures->list + pictures->offset[i];
    p.n_pictures = (int)(pictures->offset[i + 1] - pictures->offset[i]);
    return p;
}

/* A free entry with the prompt's pages. Completions start in the order of their groups, so every open group but the
   newest has a live sequence, and as many entries as slots suffice. */
static int take_group(struct sequences *s, const struct prompt *prompt) {
    int i = 0;
    while (s->groups[i].unfinished) i++;
    assert(i < s->config.slots);
    struct open_group *g = &s->groups[i];
    *g = (struct open_group){.prompt = prompt,
                             .ids = prompt->ids,
                             .places = prompt->places,
                             .unfinished = s->config.num_generations,
                             .pages = g->pages,
                             .n_pages = pages_of(prompt->places.length)};
    assert(g->n_pages <= pages_of(s->prompt_max));
    for (int k = 0; k < g->n_pages; k++) g->pages[k] = take_page(s);
    return i;
}

/* HOST tables of a prefill: (rows) each, positions (axes, rows), and (n) */
struct prefill {
    int32_t *ids, *positions, *place, *stored, *vectors, *last;
    struct segment *segments;
    int N, n_vectors;
};

/* rows: of the whole prefill */
static int stage_group(struct sequences *s, struct prefill *p, int k, struct open_group *g, int rows) {
    const struct store *store = s->store;
    const struct prompt *prompt = g->prompt;
    int length = g->places.length;
    for (int i = 0; i < prompt->n_tokens; i++) p->vectors[p->n_vectors++] = p->N + prompt->tokens[i];
    assert(p->N + length <= s->prefill_rows);
    if (store) TRY(store_open(s->store, &g->stored, length, s->config.num_generations, s->config.max_new_tokens - 1));
    p->segments[k] = (struct segment){.start = p->N, .len = length};
    for (int i = 0; i < length; i++, p->N++) {
        if (store) p->stored[p->N] = g->stored ? g->stored->prompt[i] : store->spare_rows[i % s->config.slots];
        p->ids[p->N] = g->ids[i];
        for (int axis = 0; axis < s->axes; axis++)
            p->positions[axis * rows + p->N] = position_of(&s->session->weights->spec, &g->places, i, axis);
        p->place[p->N] = g->pages[i / KV_TILE] * KV_TILE + i % KV_TILE;
    }
    p->last[k] = p->N - 1;
    return OK;
}

/* Features of the staged prompts' images */
static int upload_vectors(struct sequences *s, const struct prefill *p, const int *groups, int n) {
    struct batch *b = &s->session->batch;
    const struct weights *w = s->session->weights;
    int first = 0;
    b->vectors.n = p->n_vectors;
    b->vectors.levels = w->spec.levels;
    TRY(device_upload(&w->device, (int32_t *)b->vectors.rows, p->vectors, (size_t)p->n_vectors * sizeof *p->vectors));
    for (int k = 0; k < n; k++) {
        const struct prompt *prompt = s->groups[groups[k]].prompt;
        TRY(vectors_upload(&b->vectors, first, w, prompt->pictures, prompt->n_pictures));
        first += prompt->n_tokens;
    }
    return OK;
}

/* Runs the staged prompts; the last hidden state of each is kept for its completions. */
static int run_prefill(struct sequences *s, const struct prefill *p, const int *groups, int n) {
    struct session *session = s->session;
    const struct device *d = &session->weights->device;
    struct batch *b = &session->batch;
    size_t bytes = (size_t)p->N * sizeof(int32_t), row = stream_bytes(session->weights, 1);
    TRY(device_upload(d, b->ids, p->ids, bytes));
    TRY(device_upload(d, b->positions, p->positions, bytes * (size_t)s->axes));
    if (p->n_vectors) TRY(upload_vectors(s, p, groups, n));
    TRY(device_upload(d, s->place, p->place, bytes));
    TRY(device_upload(d, b->target_rows, p->last, (size_t)n * sizeof *p->last));
    TRY(device_upload(d, b->segments, p->segments, (size_t)n * sizeof *p->segments));
    if (s->store) TRY(device_upload(d, s->stored, p->stored, bytes));
    struct rows rows = {.N = p->N,
                        .ids = b->ids,
                        .vectors = p->n_vectors ? &b->vectors : NULL,
                        .positions = b->positions,
                        .segments = b->segments,
                        .n_segments = n,
                        .cache = &session->cache,
                        .place = s->place};
    struct stash_rows copy = {s->store ? &s->store->stash : NULL, s->stored};
    TRY(text_forward(&session->acts, &rows, s->store ? &copy : NULL));
    TRY(text_pick(&session->acts, b->target_rows, n));
    for (int k = 0; k < n; k++)
        TRY(op_copy(d, (char *)s->first_hidden + (size_t)groups[k] * row,
                    (char *)session->acts.hidden + (size_t)k * row, row));
    return OK;
}

static int prefill(struct sequences *s, const int *groups, int n) {
    size_t rows = 0, axes = (size_t)s->axes;
    for (int k = 0; k < n; k++) rows += (size_t)s->groups[groups[k]].places.length;
    int32_t *host = calloc((4 + axes) * rows + 5 * (size_t)n, sizeof *host);
    if (!host) return fail(E_MEMORY, "no memory to prefill %d prompts", n);
    struct prefill p = {.ids = host,
                        .place = host + rows,
                        .stored = host + 2 * rows,
                        .vectors = host + 3 * rows,
                        .positions = host + 4 * rows,
                        .last = host + (4 + axes) * rows,
                        .segments = (struct segment *)(host + (4 + axes) * rows + n)};
    int status = OK;
    for (int k = 0; k < n && !status; k++) status = stage_group(s, &p, k, &s->groups[groups[k]], (int)rows);
    if (!status) status = run_prefill(s, &p, groups, n);
    free(host);
    return status;
}

int sequences_open(struct sequences *s, int *out, const struct prompt *prompts, int n) {
    int begin = 0, rows = 0;
    for (int i = 0; i < n; i++) {
        if (i > begin && rows + prompts[i].places.length > s->prefill_rows) {
            TRY(prefill(s, out + begin, i - begin));
            begin = i;
            rows = 0;
        }
        out[i] = take_group(s, &prompts[i]);
        rows += prompts[i].places.length;
    }
    return begin < n ? prefill(s, out + begin, n - begin) : OK;
}

/* -- start --------------------------------------------------------------------------------------------------------- */

/* HOST: pages that are copied: completions write into their prompt's last, partly filled page */
struct copies {
    int32_t *dst, *src;
    int n;
};

static int take_slot(struct sequences *s, const struct start *start, struct copies *copies) {
    assert(s->n_live < s->config.slots);
    const struct open_group *g = &s->groups[start->group];
    assert(g->unfinished > 0 && start->sample < s->config.num_generations);
    int32_t *table = pages_of_slot(s, s->n_live);
    struct sequence *q = &s->live[s->n_live];
    *q = (struct sequence){.tag = start->tag,
                           .group = start->group,
                           .sample = start->sample,
                           .prompt_key = start->prompt_key,
                           .own = g->places.length / KV_TILE};
    memcpy(table, g->pages, (size_t)q->own * sizeof *table);
    q->n_pages = q->own;
    if (g->places.length % KV_TILE) {
        table[q->n_pages++] = take_page(s);
        copies->dst[copies->n] = table[q->own];
        copies->src[copies->n++] = g->pages[q->own];
    }
    if (s->seen) TRY(upload_flags(s, seen_by(s, s->n_live), g->ids, g->places.length));
    s->n_live++;
    return OK;
}

int sequences_start(struct sequences *s, const struct start *list, int n) {
    struct session *session = s->session;
    const struct device *d = &session->weights->device;
    int first = s->n_live;
    int32_t groups[n + 1], pages[2 * n + 1], *device = (int32_t *)s->window;
    struct copies copies = {pages, pages + n, 0};
    for (int i = 0; i < n; i++) {
        TRY(take_slot(s, &list[i], &copies));
        groups[i] = list[i].group;
    }
    if (copies.n) {
        memmove(pages + copies.n, copies.src, (size_t)copies.n * sizeof *pages);
        TRY(device_upload(d, device, pages, 2 * (size_t)copies.n * sizeof *pages));
        TRY(cache_copy_pages(&session->cache, device, device + copies.n, copies.n));
    }
    TRY(device_upload(d, device, groups, (size_t)n * sizeof *groups));
    TRY(op_gather_rows(d, session->acts.hidden, s->first_hidden, device, n, session->weights->spec.d_model));
    return draw_first(s, first);
}

/* -- close --------------------------------------------------------------------------------------------------------- */

static void close_slot(struct sequences *s, int i) {
    const struct sequence *q = &s->live[i];
    const int32_t *table = pages_of_slot(s, i);
    struct open_group *g = &s->groups[q->group];
    for (int k = q->own; k < q->n_pages; k++) s->free_pages[s->n_free++] = table[k];
    if (g->stored) store_end(s->store, g->stored, q->sample, q->length - 1);
    if (--g->unfinished) return;
    for (int k = 0; k < g->n_pages; k++) s->free_pages[s->n_free++] = g->pages[k];
    g->n_pages = 0;
    assert(s->n_free <= s->n_pages);
}

/* Slots stay in order: those of a group read the same pages of their prompt side by side. */
int sequences_close(struct sequences *s) {
    const struct weights *w = s->session->weights;
    int n = 0;
    for (int i = 0; i < s->n_live; i++) {
        if (s->live[i].ended) close_slot(s, i);
        else if (n++ < i) {
            s->live[n - 1] = s->live[i];
            memcpy(pages_of_slot(s, n - 1), pages_of_slot(s, i), (size_t)s->max_pages * sizeof(int32_t));
            if (s->seen) TRY(op_copy(&w->device, seen_by(s, n - 1), seen_by(s, i), (size_t)w->spec.vocab_size));
        }
    }
    s->n_live = n;
    return OK;
}
