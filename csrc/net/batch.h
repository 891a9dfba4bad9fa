/* Floor 3: groups (a prompt and its completions) -> packed batches. The prompt's rows stand once, each completion's
   rows after them see the prompt and themselves ("nothing is computed twice for a group"); a completion's last token
   needs no row, since nothing follows it. */
#ifndef GRPO_BATCH_H
#define GRPO_BATCH_H

#include "net/pictures.h"
#include "net/rows.h"

/* HOST view of ragged ids: item i is ids[offset[i] .. offset[i+1]). */
struct ragged {
    int n;
    const int64_t *offset;
    const int32_t *ids;
};
static inline int ragged_length(const struct ragged *r, int i) { return (int)(r->offset[i + 1] - r->offset[i]); }

struct groups {
    struct ragged prompts, completions;
    const int32_t *group;      /* (completions.n) prompt of each, ascending */
    const struct pictures *pictures;               /* of the prompts; NULL: they have none */
};
/* Ids in range, every prompt non-empty, group ascending, at most ROWS_MAX tokens, images where prompts have room for
   them: E_CONFIG that names the item otherwise. */
int groups_check(const struct groups *g, const struct spec *s);
/* E_CONFIG that names the prompt whose image has no features, or no pixels */
int pictures_have(const struct groups *g, int pixels);
/* Tokens of images in a prompt, and in all of them */
static inline int image_tokens(const struct groups *g, int prompt) {
    const struct pictures *p = g->pictures;
    return p ? (int)(p->token_offset[prompt + 1] - p->token_offset[prompt]) : 0;
}
static inline int all_image_tokens(const struct groups *g) {
    return g->pictures ? (int)g->pictures->token_offset[g->prompts.n] : 0;
}
/* Positions of a prompt's tokens on an axis (prompts.n ... lie behind each other), NULL: 0, 1, 2 ...; and of the first
   token after it, on every axis */
static inline const int32_t *prompt_positions(const struct ragged *prompts, const struct pictures *p, int prompt,
                                              int axis) {
    return p ? p->positions + axis * prompts->offset[prompts->n] + prompts->offset[prompt] : NULL;
}
static inline int position_after(const struct ragged *prompts, const struct pictures *p, int prompt) {
    return p ? p->next[prompt] : ragged_length(prompts, prompt);
}
/* Where a prompt's tokens stand, and those of its completions */
struct places {
    int length;                           /* of the prompt */
    const int32_t *of[AXES_MAX];          /* (length) each; NULL: 0, 1, 2 ... */
    int next;                             /* on every axis, of the first token after it */
};
static inline struct places places_of(const struct spec *s, const struct ragged *prompts, const struct pictures *p,
                                      int prompt) {
    struct places places = {.length = ragged_length(prompts, prompt), .next = position_after(prompts, p, prompt)};
    for (int axis = 0; axis < s->axes; axis++) places.of[axis] = prompt_positions(prompts, p, prompt, axis);
    return places;
}
/* The position of token t of a sequence on an axis, one of position_axes(): the last one, where ropes stretch, is the
   same for all of its tokens */
static inline int position_of(const struct spec *s, const struct places *places, int t, int axis) {
    if (axis == s->axes) return stretch_of(s, places->length);
    if (t >= places->length) return places->next + t - places->length;
    return places->of[axis] ? places->of[axis][t] : t;
}
/* Tokens of the longest prompt together with one of its completions */
int groups_longest(const struct groups *g);

/* A span of whole groups that is run as one batch; of these, groups with wanted[prompt] = 0 (or no tokens) are left
   out. */
struct micro_batch {
    int prompt, n_prompts, completion, n_completions, rows, head_rows;
    const uint8_t *wanted;
};

/* The next micro-batch at or after *prompt whose groups fit `token_budget` rows together (one group always fits).
   wanted (prompts.n) or NULL = all. Returns 0 when none is left. */
int batch_next(struct micro_batch *mb, int *prompt, int *completion, const struct groups *g, const uint8_t *wanted,
               int token_budget);
/* Steps *prompt and *completion to the next group of the span that is in the batch; returns its number of
   completions, 0 at the end. */
int batch_group(int *prompt, int *completion, int *head_rows, const struct groups *g, const struct micro_batch *mb);
/* No micro-batch has more rows and head rows, whichever groups are wanted: so the same step always plans the same
   memory. */
void batch_limits(int *rows, int *head_rows, const struct groups *g, int token_budget);
/* The same of n_prompts groups of num_generations completions each, all of the lengths given, none below 0; *all: rows
   of the whole step. E_CONFIG for more than ROWS_MAX tokens */
int batch_limits_of(int *rows, int *head_rows, int64_t *all, int n_prompts, int num_generations, int prompt_length,
                    int completion_length, int token_budget);

/* A packed micro-batch in device memory */
struct batch {
    const struct weights *weights;       /* of the network that it is for */
    int rows_max, head_rows_max, segments_max, vectors_max;
    struct rows rows;
    struct targets targets;
    /* what rows and targets point to */
    int32_t *ids, *positions;            /* (rows_max), (position_axes(), rows_max) */
    struct vectors vectors;              /* (vectors_max) */
    struct segment *segments;            /* (segments_max) */
    int32_t *stored;                     /* (rows_max) room for the rows of a store that hold its activations */
    int32_t *target_rows, *target_ids;   /* (head_rows_max) */
    float *coef, *ecoef;                 /* (head_rows_max) */
    float *logp, *entropy;               /* (head_rows_max) */
};
struct batch_sizes {
    int rows, head_rows, segments, vectors;
};
/* Bytes of one of its vectors */
static inline size_t vector_bytes(const struct ops *ops, const struct spec *s) {
    return sizeof(int32_t) + (size_t)s->levels * (size_t)s->d_model * (size_t)ops->real_size;
}
int batch_create(struct batch *b, const struct weights *w, const struct batch_sizes *sizes);
void batch_free(struct batch *b);
/* Grows b to at least these sizes. */
int batch_reserve(struct batch *b, const struct weights *w, const struct batch_sizes *sizes);
/* HOST staging -> b: ids, positions, segments, rows, targets of a micro-batch; vectors of images that have features.
   Head rows stand in the flat order of its completions' tokens, each group padded to ROW_ALIGN. */
int batch_pack(struct batch *b, const struct groups *g, const struct micro_batch *mb);
/* values of vectors [first, ...) = features of n images, of those that have any */
int vectors_upload(struct vectors *v, int first, const struct weights *w, const struct picture *list, int n);
/* Per-token numbers (flat over ALL completions of g, HOST) <-> padded head rows of the micro-batch (device memory). */
int batch_put(const struct device *device, float *padded, const float *flat, const struct groups *g,
              const struct micro_batch *mb);
int batch_get(const struct device *device, float *flat, const float *padded, const struct groups *g,
              const struct micro_batch *mb);

#endif
