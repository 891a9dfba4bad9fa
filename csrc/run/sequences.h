/* Floor 3: the state of a rollout, which rollout.c (set-up, prefill, the loop), slots.c (completions, their pages and text)
   and window.c (decode) share; nobody else includes it. */
#ifndef GRPO_ENGINE_H
#define GRPO_ENGINE_H

#include "model/kept.h"
#include "rl/rollout.h"

enum { STOP_TAIL = 256 };             /* bytes of text kept for stop strings; longest stop string */

/* A prompt with unfinished completions: its KV pages; its entry's row of first_hidden predicts every first token. */
struct active_prompt { int prompt, unfinished; int32_t *pages; int n_pages; };

/* A live completion of t tokens. Pages before `own` belong to its prompt. */
struct slot { int sequence, active, prompt_length, own, n_pages, ended; int32_t last, t; char tail[STOP_TAIL]; int tail_n; };

struct engine {
    struct model *m;
    struct activations *acts;             /* prefill and decode take turns */
    struct batch *batch;
    struct kv *kv;
    struct kept *kept;                    /* NULL: nothing is */
    const struct rollout_request *q;
    struct rollout_result *out;
    int S, lookahead, prompt_max, max_pages, shared_pages, n_pages, prefill_rows, rows;      /* rows: of the largest batch */
    int n_sequences, next, finished, n_slots;
    struct slot *slots;                   /* (S), the first n_slots are live, in order of their sequences */
    struct active_prompt *prompts;        /* (S) */
    int32_t *free_pages, n_free;
    real *first_hidden;                   /* (S, d) of active prompt i */
    int32_t *page_table;                  /* HOST (S, max_pages) */
    char *host, *device;                  /* window_bytes(): tables of a window; the device's are free between windows */
    struct sampled *drawn;                /* HOST (lookahead, S) */
    int32_t *place, *keep;                /* backend, prefill rows: where keys and values go, where activations go */
    struct sampler sampler;
    int32_t *stop_ids;                    /* backend: (n_stop) */
    uint8_t *forbidden, *seen;            /* backend: (V), (S, V) */
    uint8_t *flags;                       /* HOST (V): staging of these */
    int64_t tokens;
    double last_report;
};

static inline int pages_of(int positions) { return ceil_div(positions, KV_TILE); }
static inline int32_t take_page(struct engine *e) { return e->free_pages[--e->n_free]; }
static inline int32_t *pages_of_slot(const struct engine *e, int i) { return e->page_table + (size_t)i * (size_t)e->max_pages; }
static inline uint8_t *seen_by(const struct engine *e, int i) { return e->seen ? e->seen + (size_t)i * (size_t)e->m->config.vocab_size : NULL; }

/* -- slots.c -- */

/* Entry of the prompt among the active ones; or a free entry, which gets its pages and must be prefilled (fresh). Sequences
   start in order, so every entry but the newest has a live slot: S entries suffice. */
int find_prompt(struct engine *e, int prompt, int *fresh);
/* A slot for the next sequence; the prompt's last, partly filled page is copied, since completions write into it. */
int open_slot(struct engine *e, int active, int32_t *copy_dst, int32_t *copy_src, int *n_copies);
/* Takes what slots [first, n_slots) drew in `steps` steps: drawn (steps, width), column 0 is slot `first`. What a completion
   drew after its end is nobody's. Slots that ended are closed, the others close up in order. */
int take_drawn(struct engine *e, int first, int steps, int width);
/* dst (V) = 1 at ids, 0 elsewhere */
int upload_flags(struct engine *e, uint8_t *dst, const int32_t *ids, int n);

/* -- window.c -- */

size_t window_bytes(const struct engine *e);
/* First tokens of slots [first, n_slots), whose hidden states are in acts->hidden. */
int draw_first(struct engine *e, int first);
/* Up to `lookahead` tokens for every slot. */
int decode_window(struct engine *e);

#endif
