#include "net/workspace.h"

#include "base/base.h"

int workspace_take(struct workspace *w, void **memory, size_t bytes) {
    if (bytes > w->bytes) {
        workspace_free(w);                 /* first, so that both never stand side by side */
        w->memory = device_alloc(&w->device, bytes);
        if (!w->memory)
            return fail(
                E_MEMORY,
                "activations and KV cache need %.2f GB: use a smaller token_budget, fewer slots, shorter completions "
                "or "
                "recompute",
                (double)bytes / 1e9);
        w->bytes = bytes;
    }
    *memory = w->memory;
    return OK;
}

void workspace_free(struct workspace *w) {
    device_release(&w->device, w->memory);
    w->memory = NULL;
    w->bytes = 0;
}
