/* Floor 3: a store: activations of rollouts, kept by whoever holds it for the update that follows. Decoding and
   prefill are the training forward, so while the weights stand still the rows they leave here are what a forward
   over the same tokens would compute, bit for bit, and only the backward has to run. Rows are handed out as tokens
   come; a group that might not fit is not stored at all. What is there stays until the weights change, its group is
   forgotten, or the store is cleared: further rollouts add to it. */
#ifndef GRPO_STORE_H
#define GRPO_STORE_H

#include "net/stash.h"

/* A prompt and its n completions. Completion i has the id first_id + i; ids are never used again. */
struct stored_group {
    int64_t first_id;
    int n, width, prompt_length;     /* width: rows that a completion may take */
    int32_t *prompt;                 /* (prompt_length) rows of the store */
    int32_t *rows, *length;          /* (n, width) rows of each token that was run; (n) their number */
};

struct store {
    const struct weights *weights;
    struct stashes stash;            /* STASH_ALL, or STASH_INPUTS for a backward that computes layers again */
    void *arena;
    size_t bytes;
    int capacity;                    /* rows */
    int32_t *free_rows,
        *spare_rows; /* (n_free), (n_spare); the spare are nobody's: what need not be kept is put there */
    int n_free, n_spare;
    int64_t promised;                /* rows that live completions may still ask for */
    uint64_t version;                /* of the weights that the rows were computed with */
    int64_t next_id;
    struct stored_group **groups;    /* (n_groups), ids ascending */
    int n_groups, groups_max;
};

size_t store_row_bytes(const struct ops *ops, const struct spec *s, enum stashing what);

void store_create(struct store *k, const struct weights *w, enum stashing what);
void store_free(struct store *k);
/* Nothing is stored any more; the memory stays. */
void store_clear(struct store *k);
/* Before a rollout with `spare` slots: what other weights computed is forgotten, and an empty store grows to `rows`
   rows beside the spare ones. One that is not empty stays as large as it is: what does not fit is not stored.
   *usable 0: nothing would fit. */
int store_reserve(struct store *k, int *usable, int rows, int spare);
/* Room for a prompt that is about to be run and n completions of up to `width` rows each; *out NULL: it might not
   fit */
int store_open(struct store *k, struct stored_group **out, int prompt_length, int n, int width);
/* Row of a completion's next token; and its end, after the first `rows` of them: what was run further is given back. */
int32_t store_token(struct store *k, struct stored_group *g, int completion);
void store_end(struct store *k, struct stored_group *g, int completion, int rows);
/* Forgets the groups of these completions; ids that are not there are passed over. */
void store_forget(struct store *k, const int64_t *ids, int n);

/* The group of completion `id` and its place there, if what is stored still is of the weights as they are and has so
   many rows; else NULL */
const struct stored_group *store_find(const struct store *k, int *completion, int64_t id, int prompt_length, int rows);

#endif
