/* Floor 4: live sequences on one KV cache. Their life: open (a prompt is prefilled once for its group), start (a
   completion of it begins with its first token), extend (a window of drawn tokens for every live one), close (pages
   and rows go back). A rollout is one loop over these (rollout.c). What a sequence holds lasts until whoever made it
   closes it; nothing that it contains depends on its slot, on its neighbours, on order or threads. Slots, pages and
   prompts: sequences.c; state and next tokens: decode.h. */
#ifndef GRPO_SEQUENCES_H
#define GRPO_SEQUENCES_H

#include "run/decode.h"

/* Device memory of sequences in a session's workspace: cache, activations and their own */
size_t sequences_bytes(const struct ops *ops, const struct spec *spec, const struct sequences_config *config);
/* Features that prompts prefilled together have at most */
int sequences_vectors(const struct ops *ops, const struct spec *spec, const struct sequences_config *config);
/* store_rows: rows that the store should have; store may be NULL */
int sequences_create(struct sequences *s, struct session *session, const struct sequences_config *config,
                     struct store *store, int store_rows);
/* Also closes what is still live. A store forgets groups with completions that had not ended. */
void sequences_free(struct sequences *s);

/* Prefills n prompts that num_generations completions each will start from; out (n): their groups. At most `slots`
   are open. */
struct prompt {
    const int32_t *ids;
    struct places places;
    /* its images: their tokens' places in it, and their features */
    const int32_t *tokens;
    int n_tokens, n_pictures;
    const struct picture *pictures;
};
/* Prompt i of a list; pictures may be NULL */
struct prompt prompt_of(const struct spec *spec, const struct ragged *prompts, const struct pictures *pictures, int i);
int sequences_open(struct sequences *s, int *out, const struct prompt *prompts, int n);
/* Starts completions, in the order of their groups, with a first token each: (1, n) of s->drawn. */
struct start {
    int tag, group, sample;
    uint32_t prompt_key;
};
int sequences_start(struct sequences *s, const struct start *list, int n);
/* A drawn token is the sequence's next one; what was drawn after its end is nobody's. */
static inline void sequence_accept(struct sequence *q, int32_t id) {
    q->last = id;
    q->length++;
}
/* Closes those that are marked as ended; the others close up in order. */
int sequences_close(struct sequences *s);

#endif
