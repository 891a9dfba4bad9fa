/* Floor 4: the state of live sequences, and their next tokens: a window of decode steps for all of them at once. Who
   lives, and for how long, is the affair of sequences.h. */
#ifndef GRPO_DECODE_H
#define GRPO_DECODE_H

#include <assert.h>

#include "net/store.h"
#include "run/session.h"

struct prompt;

/* An open prompt with completions that have not ended: its pages; its entry's row of first_hidden predicts every
   first token. */
struct open_group {
    const struct prompt *prompt;          /* while it is being opened */
    const int32_t *ids;
    struct places places;                 /* of its tokens, while it is being opened, and of those after them */
    int unfinished;
    int32_t *pages;
    int n_pages;
    struct stored_group *stored;          /* NULL: its activations are not stored */
};

/* A live completion of `length` tokens so far. Pages before `own` belong to its prompt. */
struct sequence {
    int tag;                              /* whoever started it knows it by */
    int group, sample;                    /* its open group, its place among the group's completions */
    uint32_t prompt_key;                  /* of its random numbers, beside seed, step and sample */
    int own, n_pages, ended;
    int32_t length, last;
};

struct sequences_config {
    int slots;                            /* live at once */
    int prompts, num_generations;         /* how many will be opened in all; completions each */
    int prompt_length;                    /* of the longest prompt */
    int image_tokens;                     /* in all prompts together */
    int max_new_tokens, min_new_tokens;   /* of a completion */
    int lookahead;                        /* decode steps between two looks of the host; no bit depends on it */
    struct sampler sampler;               /* stop_ids, forbidden: filled in from the two lists */
    const int32_t *stop_ids, *forbidden_ids;
    int n_stop, n_forbidden;
    uint64_t seed;
    uint32_t step;
};

struct sequences {
    struct session *session;
    struct sequences_config config;
    struct store *store;                  /* NULL: nothing is stored */
    struct sampler sampler;
    /* sizes: sequences.c, measure() */
    int axes;                             /* position_axes() */
    int lookahead, prompt_max, max_pages, shared_pages, n_pages, prefill_rows;
    int rows;                             /* of the largest batch */
    int n_live;
    struct sequence *live;                /* (slots), the first n_live, in the order in which they were started */
    struct open_group *groups;            /* (slots) */
    int32_t *free_pages, n_free;          /* (n_pages) */
    int32_t *page_table;                  /* HOST (slots, max_pages) */
    char *host, *window;                  /* window_bytes() of the host, of the device: tables of a window */
    struct sampled *drawn;                /* HOST (lookahead, slots) */
    uint8_t *flags;                       /* HOST (V): staging of the two below */
    uint8_t *forbidden, *seen;            /* device: (V), (slots, V) */
    int32_t *stop_ids;                    /* device: (n_stop) */
    real *first_hidden;                   /* device: (slots, d), of each open group */
    int32_t *place, *stored;              /* device: (prefill_rows), where keys and values go, where activations go */
};

/* Up to `lookahead` more tokens for every live sequence: (*steps, *width) of s->drawn, column i is live[i]'s. */
int sequences_extend(struct sequences *s, int *steps, int *width);
/* First tokens of live sequences [first, n_live), whose hidden states are in the session's activations. */
int draw_first(struct sequences *s, int first);
size_t window_bytes(const struct sequences *s);

static inline int32_t take_page(struct sequences *s) {
    assert(s->n_free > 0); /* sequences.c: measure() counts the worst case */
    return s->free_pages[--s->n_free];
}
static inline int32_t *pages_of_slot(const struct sequences *s, int i) {
    return s->page_table + (size_t)i * (size_t)s->max_pages;
}
static inline uint8_t *seen_by(const struct sequences *s, int i) {
    return s->seen ? s->seen + (size_t)i * (size_t)s->session->weights->spec.vocab_size : NULL;
}

#endif
