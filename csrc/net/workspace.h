/* Floor 3: device memory for the call at hand: activations and KV pages of rollouts, scores and updates of one
   model, which never overlap and so share it. Held by whoever holds the model; grown by the largest call so far;
   holds anything. */
#ifndef GRPO_WORKSPACE_H
#define GRPO_WORKSPACE_H

#include "ops/device.h"

struct workspace {
    struct device device;
    void *memory;
    size_t bytes;
};

int workspace_take(struct workspace *w, void **memory, size_t bytes);
void workspace_free(struct workspace *w);

#endif
