/* Floor 4: features of images, no gradient: what prompts with images are given to run, and what is kept while a tower
   stands still. */
#ifndef GRPO_SEE_H
#define GRPO_SEE_H

#include "net/vision.h"
#include "net/workspace.h"

enum { PATCH_BUDGET = 4096 };            /* rows of a tower run together, where nobody asks for others */

/* Workspace of see() for batches of so many rows */
size_t see_bytes(const struct ops *ops, const struct spec *tower, int rows);

/* features[i] (HOST) = (levels, cells, out) reals of image i of n. patch_budget: rows of the tower run together; no bit
   depends on it, and one image always fits. */
int see(const struct weights *tower, struct workspace *workspace, void *const *features, const struct picture *list,
        int n, int patch_budget);

#endif
