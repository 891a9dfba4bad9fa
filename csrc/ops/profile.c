#include "ops/profile.h"

#include <stdlib.h>

int profile_on;
struct profile_line profile_lines[PROFILE_OPS] = {
#define X(name) {.op = #name},
    PROFILED(X)
#undef X
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

/* keys that queries at positions [0, n) see together */
static double seen_from_start(int n, int window) {
    double within = window && n > window ? window : n;               /* queries that see all before them */
    return within * (within + 1) / 2 + (n - within) * window;
}

struct work attention_work(const struct ops *ops, void *ctx, const struct segment *segments, int n, int window, double flops, double bytes) {
    struct segment *s = malloc((size_t)n * sizeof *s);
    double pairs = 0;
    if (s && !ops->download(ctx, s, segments, (size_t)n * sizeof *s))
        for (int i = 0; i < n; i++) pairs += seen_from_start(s[i].prefix_len + s[i].len, window) - seen_from_start(s[i].prefix_len, window);
    free(s);
    return (struct work){flops * pairs, bytes};
}

struct work decode_work(const struct ops *ops, void *ctx, const struct key_pages *keys, int S, int window, double flops, double bytes) {
    size_t slots = (size_t)S, table = slots * (size_t)keys->max_pages;
    int32_t *length = malloc((slots + table) * sizeof *length), *page = length ? length + slots : NULL;
    double pairs = 0, read = 0;
    if (length && !ops->download(ctx, length, keys->length, slots * sizeof *length) && !ops->download(ctx, page, keys->pages, table * sizeof *page))
        for (int i = 0; i < S; i++, page += keys->max_pages) {
            int shared = 0, least = i ? min_int(length[i], length[i - 1]) : 0;
            while ((shared + 1) * KV_TILE <= least && page[shared] == page[shared - keys->max_pages]) shared++;
            int first = first_key(length[i] - 1, window), both = i ? max_int(first, first_key(length[i - 1] - 1, window)) : first;
            pairs += length[i] - first;
            read += length[i] - first - max_int(0, shared * KV_TILE - both);
        }
    free(length);
    return (struct work){flops * pairs, bytes * read};
}
