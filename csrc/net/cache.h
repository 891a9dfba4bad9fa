/* Floor 3: keys and values of live sequences: per layer a pool of pages of KV_TILE positions. */
#ifndef GRPO_CACHE_H
#define GRPO_CACHE_H

#include "net/weights.h"

struct cache {
    const struct weights *weights;
    int n_pages;
    char *memory;                        /* cache_bytes() of the device, layer after layer */
    size_t layer_at[LAYERS_MAX];         /* in bytes: decoding asks for it once per layer and token */
};

size_t cache_bytes(const struct ops *ops, const struct spec *s, int n_pages);
/* Empty pages in memory that holds anything */
int cache_place(struct cache *cache, const struct weights *w, int n_pages, void *memory);
/* Where a layer's pool begins; layers may have pages of different sizes */
void *cache_layer(const struct cache *cache, int l);
/* Page dst[i] = page src[i], in every layer */
int cache_copy_pages(struct cache *cache, const int32_t *dst, const int32_t *src, int n);

#endif
