#include "net/batch.h"

#include <stdlib.h>

#include "base/base.h"

int groups_check(const struct groups *g, int vocab_size) {
    const struct {
        const char *what;
        const struct ragged *r;
    } lists[] = {{"prompt", &g->prompts}, {"completion", &g->completions}};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < lists[k].r->n; i++)
            for (int64_t t = lists[k].r->offset[i]; t < lists[k].r->offset[i + 1]; t++)
                if (lists[k].r->ids[t] < 0 || lists[k].r->ids[t] >= vocab_size)
                    return fail(E_CONFIG, "%s %d holds token id %d, but the vocabulary has %d words", lists[k].what, i,
                                (int)lists[k].r->ids[t], vocab_size);
    for (int i = 0; i < g->prompts.n; i++)
        if (!ragged_length(&g->prompts, i)) return fail(E_CONFIG, "prompt %d is empty", i);
    for (int i = 0; i < g->completions.n; i++) {
        if (g->group[i] < 0 || g->group[i] >= g->prompts.n)
            return fail(E_CONFIG, "completion %d belongs to prompt %d of %d", i, (int)g->group[i], g->prompts.n);
        if (i && g->group[i] < g->group[i - 1])
            return fail(E_CONFIG, "completions are not in the order of their prompts (at %d)", i);
    }
    return OK;
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

void batch_limits_of(int *rows, int *head_rows, int64_t *all, int n_prompts, int num_generations, int prompt_length,
                     int completion_length, int token_budget) {
    int group = round_up(prompt_length + num_generations * (completion_length - 1), ROW_ALIGN);
    int head = round_up(num_generations * completion_length, ROW_ALIGN);
    *all = (int64_t)n_prompts * group;
    limit(rows, head_rows, *all, (int64_t)n_prompts * head, group, n_prompts, n_prompts * num_generations,
          token_budget);
}

int batch_create(struct batch *b, const struct device *device, int rows, int head_rows, int segments) {
    size_t n = (size_t)rows * sizeof(int32_t), r = (size_t)head_rows * sizeof(float);
    *b = (struct batch){.device = device, .rows_max = rows, .head_rows_max = head_rows, .segments_max = segments};
    b->ids = device_alloc(device, n);
    b->positions = device_alloc(device, n);
    b->stored = device_alloc(device, n);
    b->segments = device_alloc(device, (size_t)segments * sizeof(struct segment));
    b->target_rows = device_alloc(device, r);
    b->target_ids = device_alloc(device, r);
    b->coef = device_alloc(device, r);
    b->ecoef = device_alloc(device, r);
    b->logp = device_alloc(device, r);
    b->entropy = device_alloc(device, r);
    if (b->ids && b->positions && b->stored && b->segments && b->target_rows && b->target_ids && b->coef && b->ecoef &&
        b->logp && b->entropy)
        return OK;
    batch_free(b);
    return fail(E_MEMORY, "no memory for a batch of %d rows", rows);
}

void batch_free(struct batch *b) {
    void *all[] = {b->ids,        b->positions, b->stored, b->segments, b->target_rows,
                   b->target_ids, b->coef,      b->ecoef,  b->logp,     b->entropy};
    for (size_t i = 0; b->device && i < sizeof all / sizeof *all; i++) device_release(b->device, all[i]);
    *b = (struct batch){0};
}

int batch_reserve(struct batch *b, const struct device *device, int rows, int head_rows, int segments) {
    if (rows <= b->rows_max && head_rows <= b->head_rows_max && segments <= b->segments_max) return OK;
    rows = max_int(rows, b->rows_max);
    head_rows = max_int(head_rows, b->head_rows_max);
    segments = max_int(segments, b->segments_max);
    batch_free(b);
    return batch_create(b, device, rows, head_rows, segments);
}

/* Packs one group at row and head row; HOST arrays of the whole micro-batch. */
struct staging {
    int32_t *ids, *positions, *rows, *targets;
    struct segment *segments;
    int row, head, n_segments;
};

static void stage_run(struct staging *s, const int32_t *ids, int n, int prefix, int prefix_len) {
    if (!n) return;
    s->segments[s->n_segments++] = (struct segment){s->row, n, prefix, prefix_len};
    for (int i = 0; i < n; i++) {
        s->ids[s->row] = ids[i];
        s->positions[s->row++] = prefix_len + i;
    }
}

static void stage_group(struct staging *s, const struct groups *g, int prompt, int completion, int n) {
    int start = s->row, P = ragged_length(&g->prompts, prompt);
    stage_run(s, g->prompts.ids + g->prompts.offset[prompt], P, 0, 0);
    for (int i = completion; i < completion + n; i++) {
        const int32_t *ids = g->completions.ids + g->completions.offset[i];
        int length = ragged_length(&g->completions, i), first = s->row;
        for (int t = 0; t < length; t++) {
            s->rows[s->head] = t ? first + t - 1 : start + P - 1;
            s->targets[s->head++] = ids[t];
        }
        stage_run(s, ids, max_int(0, length - 1), start, P);
    }
    s->row = round_up(s->row, ROW_ALIGN);          /* padding rows: token 0, in no segment */
    s->head = round_up(s->head, ROW_ALIGN);        /* padding head rows: row 0, target 0, coefficient 0 */
}

int batch_pack(struct batch *b, const struct groups *g, const struct micro_batch *mb) {
    const struct device *d = b->device;
    size_t n = (size_t)mb->rows, r = (size_t)mb->head_rows;
    int segments = mb->n_prompts + mb->n_completions;
    if (mb->rows > b->rows_max || mb->head_rows > b->head_rows_max || segments > b->segments_max)
        return fail(E_CONFIG, "a micro-batch of %d rows, planned for %d", mb->rows, b->rows_max);
    int32_t *host = calloc(2 * n + 2 * r + 4 * (size_t)segments, sizeof *host);
    if (!host) return fail(E_MEMORY, "no memory to pack %d rows", mb->rows);
    struct staging s = {.ids = host,
                        .positions = host + n,
                        .rows = host + 2 * n,
                        .targets = host + 2 * n + r,
                        .segments = (struct segment *)(host + 2 * n + 2 * r)};
    int count, head;
    for (int p = mb->prompt, c = mb->completion; (count = batch_group(&p, &c, &head, g, mb)); p++, c += count)
        stage_group(&s, g, p, c, count);
    b->rows = (struct rows){
        .N = mb->rows, .ids = b->ids, .positions = b->positions, .segments = b->segments, .n_segments = s.n_segments};
    b->targets = (struct targets){
        .R = mb->head_rows, .rows = b->target_rows, .ids = b->target_ids, .logp = b->logp, .entropy = b->entropy};
    int status = device_upload(d, b->ids, s.ids, n * sizeof *host);
    if (!status) status = device_upload(d, b->positions, s.positions, n * sizeof *host);
    if (!status) status = device_upload(d, b->target_rows, s.rows, r * sizeof *host);
    if (!status) status = device_upload(d, b->target_ids, s.targets, r * sizeof *host);
    if (!status) status = device_upload(d, b->segments, s.segments, (size_t)s.n_segments * sizeof *s.segments);
    free(host);
    return status;
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
