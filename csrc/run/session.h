/* Floor 4: what runs a model without gradients: one set of activations, one packed batch, the KV cache. Laid out in
   the model's workspace at the start of each call. */
#ifndef GRPO_SESSION_H
#define GRPO_SESSION_H

#include "net/batch.h"
#include "net/text.h"
#include "net/workspace.h"

struct session {
    const struct weights *weights;
    struct workspace *workspace;
    struct activations acts;      /* STASH_NOTHING */
    struct batch batch;
    struct cache cache;
    char *rest;                   /* `more` bytes of the workspace, the caller's; they hold anything */
};

/* Ready for calls of these sizes, with so many empty pages of the cache and `more` bytes */
int session_reserve(struct session *s, const struct text_limits *need, int cache_pages, size_t more);
void session_free(struct session *s);

#endif
