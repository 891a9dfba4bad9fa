/* Floor 3: groups (a prompt and its completions) -> packed batches. The prompt's rows stand once, each completion's
   rows after them see the prompt and themselves ("nothing is computed twice for a group"); a completion's last token
   needs no row, since nothing follows it. */
#ifndef GRPO_BATCH_H
#define GRPO_BATCH_H

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
};
/* Ids in range, every prompt non-empty, group ascending: E_CONFIG that names the item otherwise. */
int groups_check(const struct groups *g, int vocab_size);

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
/* The same of n_prompts groups of num_generations completions each, all of the lengths given; *all: rows of the
   whole step */
void batch_limits_of(int *rows, int *head_rows, int64_t *all, int n_prompts, int num_generations, int prompt_length,
                     int completion_length, int token_budget);

/* A packed micro-batch in device memory */
struct batch {
    const struct device *device;
    int rows_max, head_rows_max, segments_max;
    struct rows rows;
    struct targets targets;
    /* what rows and targets point to */
    int32_t *ids, *positions;            /* (rows_max) */
    struct segment *segments;            /* (segments_max) */
    int32_t *stored; /* (rows_max) room for the rows of a store that hold the batch's activations */
    int32_t *target_rows, *target_ids; /* (head_rows_max) */
    float *coef, *ecoef, *logp, *entropy;
};
int batch_create(struct batch *b, const struct device *device, int rows, int head_rows, int segments);
void batch_free(struct batch *b);
/* Grows b to at least these sizes. */
int batch_reserve(struct batch *b, const struct device *device, int rows, int head_rows, int segments);
/* HOST staging -> b: ids, positions, segments, rows, targets of a micro-batch. Head rows stand in the flat order of its
   completions' tokens, each group padded to ROW_ALIGN. */
int batch_pack(struct batch *b, const struct groups *g, const struct micro_batch *mb);
/* Per-token numbers (flat over ALL completions of g, HOST) <-> padded head rows of the micro-batch (device memory). */
int batch_put(const struct device *device, float *padded, const float *flat, const struct groups *g,
              const struct micro_batch *mb);
int batch_get(const struct device *device, float *flat, const float *padded, const struct groups *g,
              const struct micro_batch *mb);

#endif
