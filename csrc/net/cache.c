#include "net/cache.h"

#include <assert.h>

#include "base/base.h"

static size_t page_bytes(const struct ops *ops, const struct spec *s, int l) {
    const struct attention_spec *a = &s->layers[l].attention;
    return ops->kv_page_bytes(a->kv_heads, a->head_dim);
}

size_t cache_bytes(const struct ops *ops, const struct spec *s, int n_pages) {
    size_t bytes = 0;
    for (int l = 0; l < s->n_layers; l++) bytes += page_bytes(ops, s, l) * (size_t)n_pages;
    return bytes;
}

int cache_place(struct cache *cache, const struct weights *w, int n_pages, void *memory) {
    *cache = (struct cache){.weights = w, .n_pages = n_pages, .memory = memory};
    size_t bytes = 0;
    for (int l = 0; l < w->spec.n_layers; l++) {
        cache->layer_at[l] = bytes;
        bytes += page_bytes(w->device.ops, &w->spec, l) * (size_t)n_pages;
    }
    /* places that were never stored hold finite numbers */
    return bytes ? op_zero(&w->device, memory, bytes) : OK;
}

void *cache_layer(const struct cache *cache, int l) {
    assert(l >= 0 && l < cache->weights->spec.n_layers);
    return cache->memory + cache->layer_at[l];
}

int cache_copy_pages(struct cache *cache, const int32_t *dst, const int32_t *src, int n) {
    const struct weights *w = cache->weights;
    for (int l = 0; l < w->spec.n_layers; l++) {
        struct attention_shape shape = shape_of_attention(&w->spec.layers[l].attention);
        TRY(op_kv_copy(&w->device, cache_layer(cache, l), dst, src, n, &shape));
    }
    return OK;
}
