#include "run/session.h"

#include <assert.h>

#include "base/base.h"

int session_reserve(struct session *s, const struct text_limits *need, int cache_pages, size_t more) {
    const struct weights *w = s->weights;
    struct activations *a = &s->acts;
    TRY(text_reserve(w, need));
    if (need->rows > a->rows_max || need->head_rows > a->head_rows_max) {
        int rows = max_int(need->rows, a->rows_max), head_rows = max_int(need->head_rows, a->head_rows_max);
        activations_free(a);
        TRY(activations_create(a, w, STASH_NOTHING, rows, head_rows));
    }
    TRY(batch_reserve(&s->batch, w, &(struct batch_sizes){need->rows, need->head_rows, need->segments, need->vectors}));
    size_t cache = cache_bytes(w->device.ops, &w->spec, cache_pages);
    void *memory;
    TRY(workspace_take(s->workspace, &memory, a->bytes + cache + more));
    s->rest = (char *)memory + a->bytes + cache;
    assert((a->bytes | cache) % 64 == 0);
    activations_place(a, memory);
    return cache_place(&s->cache, w, cache_pages, (char *)memory + a->bytes);
}

void session_free(struct session *s) {
    batch_free(&s->batch);
    activations_free(&s->acts);
}
