#include "net/batch.h"

#include <assert.h>
#include <stdlib.h>

#include "base/base.h"

/* Images of prompt i: as many tokens as they have cells, each a place of the prompt; positions that a rope can take */
static int check_pictures(const struct ragged *prompts, const struct pictures *p, int i, int axes) {
    int64_t begin = p->token_offset[i], end = p->token_offset[i + 1], cells = 0;
    for (int64_t k = p->offset[i]; k < p->offset[i + 1]; k++) cells += p->list[k].cells;
    if (cells != end - begin)
        return fail(E_CONFIG, "prompt %d has %lld tokens for images, and its %lld images have %lld", i,
                    (long long)(end - begin), (long long)(p->offset[i + 1] - p->offset[i]), (long long)cells);
    for (int64_t k = begin; k < end; k++)
        if (p->tokens[k] < 0 || p->tokens[k] >= ragged_length(prompts, i) ||
            (k > begin && p->tokens[k] <= p->tokens[k - 1]))
            return fail(E_CONFIG, "prompt %d: token %d cannot be an image's", i, (int)p->tokens[k]);
    for (int axis = 0; axis < axes; axis++)
        for (int t = 0; t < ragged_length(prompts, i); t++) {
            int position = prompt_positions(prompts, p, i, axis)[t];
            if (position < 0 || position >= ROWS_MAX)
                return fail(E_CONFIG, "prompt %d: position %d of token %d", i, position, t);
        }
    return p->next[i] >= 0 && p->next[i] < ROWS_MAX ? OK
                                                    : fail(E_CONFIG, "prompt %d: position %d after it", i, p->next[i]);
}

int pictures_have(const struct groups *g, int pixels) {
    const struct pictures *p = g->pictures;
    for (int i = 0; p && i < g->prompts.n; i++)
        for (int64_t k = p->offset[i]; k < p->offset[i + 1]; k++)
            if (pixels ? !p->list[k].pixels : !p->list[k].features)
                return fail(E_CONFIG, "image %lld of prompt %d has no %s", (long long)(k - p->offset[i]), i,
                            pixels ? "pixels" : "features");
    return OK;
}

int groups_check(const struct groups *g, const struct spec *s) {
    const struct {
        const char *what;
        const struct ragged *r;
    } lists[] = {{"prompt", &g->prompts}, {"completion", &g->completions}};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < lists[k].r->n; i++)
            for (int64_t t = lists[k].r->offset[i]; t < lists[k].r->offset[i + 1]; t++)
                if (lists[k].r->ids[t] < 0 || lists[k].r->ids[t] >= s->vocab_size)
                    return fail(E_CONFIG, "%s %d holds token id %d, but the vocabulary has %d words", lists[k].what, i,
                                (int)lists[k].r->ids[t], s->vocab_size);
    for (int k = 0; k < 2; k++)
        if (lists[k].r->n && lists[k].r->offset[lists[k].r->n] > ROWS_MAX / 2)
            return fail(E_CONFIG, "%ss of more than %d tokens together", lists[k].what, ROWS_MAX / 2);
    for (int i = 0; i < g->prompts.n; i++)
        if (!ragged_length(&g->prompts, i)) return fail(E_CONFIG, "prompt %d is empty", i);
    for (int i = 0; i < g->prompts.n && g->pictures; i++) TRY(check_pictures(&g->prompts, g->pictures, i, s->axes));
    for (int i = 0; i < g->completions.n; i++) {
        if (g->group[i] < 0 || g->group[i] >= g->prompts.n)
            return fail(E_CONFIG, "completion %d belongs to prompt %d of %d", i, (int)g->group[i], g->prompts.n);
        if (i && g->group[i] < g->group[i - 1])
            return fail(E_CONFIG, "completions are not in the order of their prompts (at %d)", i);
    }
    return OK;
}

int groups_longest(const struct groups *g) {
    int longest = 0;
    for (int i = 0; i < g->completions.n; i++)
        longest = max_int(longest, ragged_length(&g->prompts, g->group[i]) + ragged_length(&g->completions, i));
    return longest;
}

/* Rows of the group that begins at completion `at`; sets its number of completions and of head rows. */
static int group_rows(const struct groups *g, int prompt, int at, int *n_completions, int *head_rows) {
    int rows = ragged_length(&g->prompts, prompt), n = 0, head = 0;
    for (; at + n < g->completions.n && g->group[at + n] == prompt; n++) {
        int length = ragged_length(&g->completions, at + n);
        rows += max_int(0, length - 1);
        head += length;
    }
    *n_completions = n;
    *head_rows = round_up(head, ROW_ALIGN);
    return round_up(rows, ROW_ALIGN);
}

int batch_next(struct micro_batch *mb, int *prompt, int *completion, const struct groups *g, const uint8_t *wanted,
               int token_budget) {
    *mb = (struct micro_batch){.prompt = *prompt, .completion = *completion, .wanted = wanted};
    for (; *prompt < g->prompts.n; ++*prompt) {
        int n, head, rows = group_rows(g, *prompt, *completion, &n, &head);
        if (head && (!wanted || wanted[*prompt])) {
            if (mb->rows && mb->rows + rows > token_budget) break;
            mb->rows += rows;
            mb->head_rows += head;
        }
        mb->n_prompts++;
        mb->n_completions += n;
        *completion += n;
    }
    return mb->rows > 0;
}

int batch_group(int *prompt, int *completion, int *head_rows, const struct groups *g, const struct micro_batch *mb) {
    for (; *prompt < mb->prompt + mb->n_prompts; ++*prompt) {
        int n;
        group_rows(g, *prompt, *completion, &n, head_rows);
        if (*head_rows && (!mb->wanted || mb->wanted[*prompt])) return n;
        *completion += n;
    }
    return 0;
}

static void limit(int *rows, int *head_rows, int64_t all_rows, int64_t all_head, int largest, int n_prompts,
                  int n_completions, int token_budget) {
    *rows = all_rows > token_budget ? max_int(largest, token_budget) : (int)all_rows;
    int64_t most_head = (int64_t)*rows + n_completions + (int64_t)ROW_ALIGN * n_prompts;
    *head_rows = round_up((int)(all_head < most_head ? all_head : most_head), ROW_ALIGN);
}

void batch_limits(int *rows, int *head_rows, const struct groups *g, int token_budget) {
    int64_t all_rows = 0, all_head = 0;
    int largest = 0, n, head;
    for (int prompt = 0, completion = 0; prompt < g->prompts.n; prompt++, completion += n) {
        int r = group_rows(g, prompt, completion, &n, &head);
        if (!head) continue;
        largest = max_int(largest, r);
        all_rows += r;
        all_head += head;
    }
    limit(rows, head_rows, all_rows, all_head, largest, g->prompts.n, g->completions.n, token_budget);
}

int batch_limits_of(int *rows, int *head_rows, int64_t *all, int n_prompts, int num_generations, int prompt_length,
                    int completion_length, int token_budget) {
    int64_t tokens = prompt_length + (int64_t)num_generations * max_int(1, completion_length) + ROW_ALIGN;
    if (tokens > ROWS_MAX || n_prompts * tokens > ROWS_MAX)
        return fail(E_CONFIG, "%d groups of %d completions of %d tokens: a step has at most %d tokens", n_prompts,
                    num_generations, completion_length, ROWS_MAX);
    int group = round_up(prompt_length + num_generations * (completion_length - 1), ROW_ALIGN);
    int head = round_up(num_generations * completion_length, ROW_ALIGN);
    *all = (int64_t)n_prompts * group;
    limit(rows, head_rows, *all, (int64_t)n_prompts * head, group, n_prompts, n_prompts * num_generations,
          token_budget);
    return OK;
}

static int take_vectors(struct batch *b, int n) {
    const struct weights *w = b->weights;
    b->vectors.rows = device_alloc(&w->device, (size_t)n * sizeof(int32_t));
    b->vectors.values = device_alloc(&w->device, (size_t)w->spec.levels * stream_bytes(w, n));
    return b->vectors.rows && b->vectors.values ? OK : fail(E_MEMORY, "no memory for the features of %d tokens", n);
}

int batch_create(struct batch *b, const struct weights *w, const struct batch_sizes *sizes) {
    const struct device *device = &w->device;
    size_t n = (size_t)sizes->rows * sizeof(int32_t), r = (size_t)sizes->head_rows * sizeof(float);
    *b = (struct batch){.weights = w,
                        .rows_max = sizes->rows,
                        .head_rows_max = sizes->head_rows,
                        .segments_max = sizes->segments,
                        .vectors_max = sizes->vectors};
    b->ids = device_alloc(device, n);
    b->positions = device_alloc(device, n * (size_t)position_axes(&w->spec));
    b->stored = device_alloc(device, n);
    b->segments = device_alloc(device, (size_t)sizes->segments * sizeof(struct segment));
    b->target_rows = device_alloc(device, r);
    b->target_ids = device_alloc(device, r);
    b->coef = device_alloc(device, r);
    b->ecoef = device_alloc(device, r);
    b->logp = device_alloc(device, r);
    b->entropy = device_alloc(device, r);
    int good = b->ids && b->positions && b->stored && b->segments && b->target_rows && b->target_ids && b->coef &&
               b->ecoef && b->logp && b->entropy;
    int status = good ? OK : fail(E_MEMORY, "no memory for a batch of %d rows", sizes->rows);
    if (!status && sizes->vectors) status = take_vectors(b, sizes->vectors);
    if (status) batch_free(b);
    return status;
}

void batch_free(struct batch *b) {
    void *all[] = {b->ids,  b->positions, b->stored, b->segments, b->target_rows,          b->target_ids,
                   b->coef, b->ecoef,     b->logp,   b->entropy,  (void *)b->vectors.rows, b->vectors.values};
    for (size_t i = 0; b->weights && i < sizeof all / sizeof *all; i++) device_release(&b->weights->device, all[i]);
    *b = (struct batch){0};
}

int batch_reserve(struct batch *b, const struct weights *w, const struct batch_sizes *sizes) {
    struct batch_sizes most = {.rows = max_int(sizes->rows, b->rows_max),
                               .head_rows = max_int(sizes->head_rows, b->head_rows_max),
                               .segments = max_int(sizes->segments, b->segments_max),
                               .vectors = max_int(sizes->vectors, b->vectors_max)};
    if (most.rows == b->rows_max && most.head_rows == b->head_rows_max && most.segments == b->segments_max &&
        most.vectors == b->vectors_max)
        return OK;
    batch_free(b);
    return batch_create(b, w, &most);
}

/* Packs one group at row and head row; HOST arrays of the whole micro-batch. */
struct staging {
    const struct spec *spec;
    int32_t *ids, *positions, *rows, *targets;
    int32_t *vectors;                    /* rows of images' tokens */
    struct segment *segments;
    int N, axes, row, head, n_segments, n_vectors;
};

/* n ids, tokens first ... of a sequence */
static void stage_run(struct staging *s, const int32_t *ids, int n, int prefix, int prefix_len,
                      const struct places *places, int first) {
    if (!n) return;
    s->segments[s->n_segments++] = (struct segment){s->row, n, prefix, prefix_len};
    for (int i = 0; i < n; i++, s->row++) {
        s->ids[s->row] = ids[i];
        for (int axis = 0; axis < s->axes; axis++)
            s->positions[axis * s->N + s->row] = position_of(s->spec, places, first + i, axis);
    }
}

static void stage_prompt(struct staging *s, const struct groups *g, int prompt, const struct places *places) {
    const struct pictures *p = g->pictures;
    int start = s->row;
    stage_run(s, g->prompts.ids + g->prompts.offset[prompt], places->length, 0, 0, places, 0);
    for (int64_t k = p ? p->token_offset[prompt] : 0; p && k < p->token_offset[prompt + 1]; k++)
        s->vectors[s->n_vectors++] = start + p->tokens[k];
}

static void stage_group(struct staging *s, const struct groups *g, int prompt, int completion, int n) {
    struct places places = places_of(s->spec, &g->prompts, g->pictures, prompt);
    int start = s->row, P = places.length;
    stage_prompt(s, g, prompt, &places);
    for (int i = completion; i < completion + n; i++) {
        const int32_t *ids = g->completions.ids + g->completions.offset[i];
        int length = ragged_length(&g->completions, i), first = s->row;
        for (int t = 0; t < length; t++) {
            s->rows[s->head] = t ? first + t - 1 : start + P - 1;
            s->targets[s->head++] = ids[t];
        }
        stage_run(s, ids, max_int(0, length - 1), start, P, &places, P);
    }
    s->row = round_up(s->row, ROW_ALIGN);          /* padding rows: token 0, in no segment */
    s->head = round_up(s->head, ROW_ALIGN);        /* padding head rows: row 0, target 0, coefficient 0 */
}

int vectors_upload(struct vectors *v, int first, const struct weights *w, const struct picture *list, int n) {
    size_t row = stream_bytes(w, 1);
    for (int i = 0; i < n; first += list[i++].cells)
        for (int level = 0; level < v->levels && list[i].features; level++)
            TRY(device_upload(&w->device, (char *)v->values + ((size_t)level * (size_t)v->n + (size_t)first) * row,
                              (const char *)list[i].features + (size_t)level * (size_t)list[i].cells * row,
                              (size_t)list[i].cells * row));
    return OK;
}

/* Features of the micro-batch's images, as many as there are */
static int upload_vectors(struct batch *b, const struct groups *g, const struct micro_batch *mb) {
    const struct pictures *pictures = g->pictures;
    int count, head, first = 0;
    for (int p = mb->prompt, c = mb->completion; (count = batch_group(&p, &c, &head, g, mb)); p++, c += count) {
        int n = (int)(pictures->offset[p + 1] - pictures->offset[p]);
        TRY(vectors_upload(&b->vectors, first, b->weights, pictures->list + pictures->offset[p], n));
        first += image_tokens(g, p);
    }
    return OK;
}

static int upload_staged(struct batch *b, const struct staging *s) {
    const struct device *d = &b->weights->device;
    size_t n = (size_t)s->row, r = (size_t)s->head, number = sizeof(int32_t);
    b->rows = (struct rows){
        .N = s->row, .ids = b->ids, .positions = b->positions, .segments = b->segments, .n_segments = s->n_segments};
    b->targets = (struct targets){
        .R = s->head, .rows = b->target_rows, .ids = b->target_ids, .logp = b->logp, .entropy = b->entropy};
    TRY(device_upload(d, b->ids, s->ids, n * number));
    TRY(device_upload(d, b->positions, s->positions, (size_t)s->axes * n * number));
    TRY(device_upload(d, b->target_rows, s->rows, r * number));
    TRY(device_upload(d, b->target_ids, s->targets, r * number));
    TRY(device_upload(d, b->segments, s->segments, (size_t)s->n_segments * sizeof *s->segments));
    b->vectors.n = s->n_vectors;
    b->vectors.levels = b->weights->spec.levels;
    b->vectors.differentiate = 0;
    if (!s->n_vectors) return OK;
    b->rows.vectors = &b->vectors;
    return device_upload(d, (int32_t *)b->vectors.rows, s->vectors, (size_t)s->n_vectors * number);
}

/* Groups of the micro-batch, one after the other */
static void stage_all(struct staging *s, const struct groups *g, const struct micro_batch *mb) {
    int count, head;
    for (int p = mb->prompt, c = mb->completion; (count = batch_group(&p, &c, &head, g, mb)); p++, c += count)
        stage_group(s, g, p, c, count);
    assert(s->row == mb->rows && s->head == mb->head_rows);
}

int batch_pack(struct batch *b, const struct groups *g, const struct micro_batch *mb) {
    size_t n = (size_t)mb->rows, r = (size_t)mb->head_rows, axes = (size_t)position_axes(&b->weights->spec);
    int segments = mb->n_prompts + mb->n_completions, vectors = min_int(all_image_tokens(g), mb->rows);
    if (mb->rows > b->rows_max || mb->head_rows > b->head_rows_max || segments > b->segments_max ||
        vectors > b->vectors_max)
        return fail(E_CONFIG, "a micro-batch of %d rows, planned for %d", mb->rows, b->rows_max);
    int32_t *host = calloc((2 + axes) * n + 2 * r + 4 * (size_t)segments, sizeof *host);
    if (!host) return fail(E_MEMORY, "no memory to pack %d rows", mb->rows);
    struct staging s = {.spec = &b->weights->spec,
                        .ids = host,
                        .vectors = host + n,
                        .positions = host + 2 * n,
                        .rows = host + (2 + axes) * n,
                        .targets = host + (2 + axes) * n + r,
                        .segments = (struct segment *)(host + (2 + axes) * n + 2 * r),
                        .N = mb->rows,
                        .axes = (int)axes};
    stage_all(&s, g, mb);
    assert(s.n_segments <= segments && s.n_vectors <= vectors);
    int status = upload_staged(b, &s);
    free(host);
    return !status && s.n_vectors ? upload_vectors(b, g, mb) : status;
}

/* Each group's numbers from their flat place to their padded one */
static void pad_rows(float *padded, const float *flat, const struct groups *g, const struct micro_batch *mb) {
    int count, head, at = 0;
    for (int p = mb->prompt, c = mb->completion; (count = batch_group(&p, &c, &head, g, mb));
         p++, c += count, at += head) {
        int64_t from = g->completions.offset[c];
        memcpy(padded + at, flat + from, (size_t)(g->completions.offset[c + count] - from) * sizeof *flat);
    }
}

/* And back */
static void unpad_rows(float *flat, const float *padded, const struct groups *g, const struct micro_batch *mb) {
    int count, head, at = 0;
    for (int p = mb->prompt, c = mb->completion; (count = batch_group(&p, &c, &head, g, mb));
         p++, c += count, at += head) {
        int64_t to = g->completions.offset[c];
        memcpy(flat + to, padded + at, (size_t)(g->completions.offset[c + count] - to) * sizeof *flat);
    }
}

int batch_put(const struct device *device, float *padded, const float *flat, const struct groups *g,
              const struct micro_batch *mb) {
    float *host = calloc((size_t)mb->head_rows, sizeof *host);
    if (!host) return fail(E_MEMORY, "no memory for %d numbers", mb->head_rows);
    pad_rows(host, flat, g, mb);
    int status = device_upload(device, padded, host, (size_t)mb->head_rows * sizeof *host);
    free(host);
    return status;
}

int batch_get(const struct device *device, float *flat, const float *padded, const struct groups *g,
              const struct micro_batch *mb) {
    float *host = malloc((size_t)mb->head_rows * sizeof *host);
    if (!host) return fail(E_MEMORY, "no memory for %d numbers", mb->head_rows);
    int status = device_download(device, host, padded, (size_t)mb->head_rows * sizeof *host);
    if (!status) unpad_rows(flat, host, g, mb);
    free(host);
    return status;
}
