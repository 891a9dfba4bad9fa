#include "ops/device.h"

#include <stdlib.h>

int profile_on;
struct profile_line profile_lines[PROFILE_OPS] = {
#define MEMORY(result, name, parameters)
#define PLAN MEMORY
#define OP(name, ...) {.op = #name},
#define OP_BY_HAND OP
#include "ops/ops.def"
};

void profile_start(void) {
    for (int i = 0; i < PROFILE_OPS; i++) profile_lines[i] = (struct profile_line){.op = profile_lines[i].op};
    profile_on = 1;
}

void profile_add(enum profiled op, double seconds, struct work work) {
    struct profile_line *line = &profile_lines[op];
    line->calls++;
    line->seconds += seconds;
    line->work.flops += work.flops;
    line->work.bytes += work.bytes;
}

/* a copy in host memory, to be freed, or NULL */
static void *fetch(const struct device *d, const void *src, size_t bytes) {
    void *host = malloc(bytes ? bytes : 1);
    if (host && !device_download(d, host, src, bytes)) return host;
    free(host);
    return NULL;
}

/* keys that queries at positions [0, n) see, all together */
static double seen_from_start(int n, int window) {
    double within = window && n > window ? window : n;               /* queries that see all before them */
    return within * (within + 1) / 2 + (n - within) * window;
}

static double seen_of_segment(const struct segment *s, const struct attention_shape *a) {
    if (a->sight != SEES_BEFORE) return (double)s->len * end_key(0, s, a->sight);
    return seen_from_start(s->prefix_len + s->len, a->window) - seen_from_start(s->prefix_len, a->window);
}

double visible_pairs(const struct device *d, const struct segment *segments, int n, const struct attention_shape *a) {
    struct segment *s = fetch(d, segments, (size_t)n * sizeof *s);
    double pairs = 0;
    for (int i = 0; s && i < n; i++) pairs += seen_of_segment(&s[i], a);
    free(s);
    return pairs;
}

double decode_pairs(const struct device *d, const struct key_pages *keys, int S, int window) {
    int32_t *length = fetch(d, keys->length, (size_t)S * sizeof *length);
    double pairs = 0;
    for (int i = 0; length && i < S; i++) pairs += length[i] - first_key(length[i] - 1, window);
    free(length);
    return pairs;
}

double decode_reads(const struct device *d, const struct key_pages *keys, int S, int window) {
    size_t columns = (size_t)keys->max_pages;
    int32_t *length = fetch(d, keys->length, (size_t)S * sizeof *length);
    int32_t *pages = fetch(d, keys->pages, (size_t)S * columns * sizeof *pages);
    double read = 0;
    for (int i = 0; length && pages && i < S; i++) {
        const int32_t *own = pages + (size_t)i * columns;
        int shared = 0, least = i ? min_int(length[i], length[i - 1]) : 0;
        while ((shared + 1) * KV_TILE <= least && own[shared] == own[shared - keys->max_pages]) shared++;
        int first = first_key(length[i] - 1, window), before = i ? first_key(length[i - 1] - 1, window) : 0;
        read += length[i] - first - max_int(0, shared * KV_TILE - max_int(first, before));
    }
    free(length);
    free(pages);
    return read;
}
