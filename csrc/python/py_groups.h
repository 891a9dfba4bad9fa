/* Prompts with their images and completions, from Python arguments (net/batch.h, net/pictures.h). */
#ifndef GRPO_PY_GROUPS_H
#define GRPO_PY_GROUPS_H

#include "binding.h"

#include "net/pictures.h"
#include "net/weights.h"

struct pictures_owner {
    struct pictures view;
    struct picture *list;
    int64_t *offset, *token_offset;
    int32_t *tokens, *positions, *next;
    PyObject *held;                      /* the arrays that view points into */
};
/* images: None, or for each of the prompts None or (positions, next, tokens, [(grid, pixels, features), ...]): int32
   (axes, tokens of the prompt), int, int32, and of each image int64 (3), float32 (patches, columns) or None, and an
   array as Model.see() returns it or None. *out NULL: none. Release it also after a failure. */
int pictures_arg(const struct pictures **out, struct pictures_owner *owner, PyObject *images,
                 const struct ragged *prompts, const struct weights *text, const struct weights *tower);
void pictures_release(struct pictures_owner *owner);
/* One image of such a list; `held` gets its arrays */
int picture_arg(struct picture *out, PyObject *held, PyObject *object, const struct weights *tower, const char *name);

/* A batch of groups whose tokens get log-probs and entropies: the arguments, and arrays for the results. End it also
   after a failure. */
struct scored_groups {
    struct groups groups;
    struct ragged_owner prompts, completions;
    struct pictures_owner pictures;
    npy_intp tokens;
    PyObject *logp, *entropy;
};
/* group: int32, the prompt of each completion; images: as of pictures_arg() */
struct group_arguments {
    PyObject *prompts, *completions, *group, *images;
};
int scored_groups_begin(struct scored_groups *s, const struct group_arguments *a, const struct weights *text,
                        const struct weights *tower);
void scored_groups_end(struct scored_groups *s);

#endif
