/* Floor 4: live sequences on one KV cache. Their life: open (a prompt is prefilled once for its group), start (a
   completion of it begins with its first token), extend (a window of drawn tokens for every live one), close (pages
   and rows go back). A rollout is one loop over these (rollout.c). What a sequence holds lasts until whoever made it
   closes it; nothing that it contains depends on its slot, on its neighbours, on order or threads. Slots, pages and
   prompts: sequences.c; the window: decode.c. */
#ifndef GRPO_SEQUENCES_H
#define GRPO_SEQUENCES_H

#include "net/store.h"
#include "run/session.h"

/* An open prompt with completions that have not ended: its pages; its entry's row of first_hidden predicts every
   first token. */
struct open_group {
    const int32_t *ids;
    int length, unfinished;
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
    int slots, prompt_length, max_new_tokens,
        min_new_tokens;      /* live at once; of the longest prompt; tokens a completion */
    int lookahead;                        /* decode steps between two looks of the host; no bit depends on it */
    int prompts;                          /* how many will be opened in all; num_generations completions each */
    int num_generations;
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
    int lookahead, prompt_max, max_pages, shared_pages, n_pages, prefill_rows, rows; /* rows: of the largest batch */
    int n_live;
    struct sequence *live; /* (slots), the first n_live, in the order in which they were started */
    struct open_group *groups; /* (slots) */
    int32_t *free_pages, n_free;
    int32_t *page_table; /* HOST (slots, max_pages) */
    char *host, *window; /* window_bytes(): tables of a window, of the host and the device; free between windows */
    struct sampled *drawn; /* HOST (lookahead, slots) */
    uint8_t *flags; /* HOST (V): staging of the two below */
    int32_t *stop_ids; /* device: (n_stop) */
    uint8_t *forbidden, *seen; /* device: (V), (slots, V) */
    real *first_hidden; /* device (slots, d) of each open group */
    int32_t *place, *stored; /* device (prefill_rows): where keys and values go, where activations go */
};

/* Device memory of sequences in a session's workspace: cache, activations and their own */
size_t sequences_bytes(const struct ops *ops, const struct spec *spec, const struct sequences_config *config);
/* store_rows: rows that the store should have; store may be NULL */
int sequences_create(struct sequences *s, struct session *session, const struct sequences_config *config,
                     struct store *store, int store_rows);
/* Also closes what is still live. A store forgets groups with completions that had not ended. */
void sequences_free(struct sequences *s);

/* Prefills n prompts that num_generations completions each will start from; out (n): their groups. At most `slots`
   are open. */
struct prompt {
    const int32_t *ids;
    int length;
};
int sequences_open(struct sequences *s, int *out, const struct prompt *prompts, int n);
/* Starts completions, in the order of their groups, with a first token each: (1, n) of s->drawn. */
struct start {
    int tag, group, sample;
    uint32_t prompt_key;
};
int sequences_start(struct sequences *s, const struct start *list, int n);
/* Up to `lookahead` more tokens for every live sequence: (*steps, *width) of s->drawn, column i is live[i]'s. */
int sequences_extend(struct sequences *s, int *steps, int *width);
/* A drawn token is the sequence's next one; what was drawn after its end is nobody's. */
static inline void sequence_accept(struct sequence *q, int32_t id) {
    q->last = id;
    q->length++;
}
/* Closes those that are marked as ended; the others close up in order. */
int sequences_close(struct sequences *s);

/* -- between sequences.c and decode.c ------------------------------------------------------------------------------ */

static inline int32_t take_page(struct sequences *s) { return s->free_pages[--s->n_free]; }
static inline int32_t *pages_of_slot(const struct sequences *s, int i) {
    return s->page_table + (size_t)i * (size_t)s->max_pages;
}
static inline uint8_t *seen_by(const struct sequences *s, int i) {
    return s->seen ? s->seen + (size_t)i * (size_t)s->session->weights->spec.vocab_size : NULL;
}
size_t window_bytes(const struct sequences *s);
/* First tokens of live sequences [first, n_live), whose hidden states are in the session's activations. */
int draw_first(struct sequences *s, int first);

#endif
