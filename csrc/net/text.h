/* Floor 3: the text decoder, forward, backward and one decode step, written once against the op table. A batch is
   packed rows (no padding inside a sequence); a group is its prompt's rows followed by its completions' rows. */
#ifndef GRPO_TEXT_H
#define GRPO_TEXT_H

#include "net/rows.h"
#include "net/stash.h"

/* Scratch of the device's ops for calls of up to: rows packed rows, head_rows predicting rows, slots of decode,
   segments, positions of a sequence; shared_pages of attention_decode; vectors among the rows. E_CONFIG for more
   positions than the network has. */
struct text_limits {
    int rows, head_rows, slots, segments, positions, shared_pages, vectors;
};
int text_reserve(const struct weights *w, const struct text_limits *need);

/* Hidden states of the rows. copy: where their activations are saved as well; may be NULL */
int text_forward(struct activations *a, const struct rows *r, const struct stash_rows *copy);
/* Weights of attention, looked at while layers run: layers (HOST, ascending), rows (R) of the batch, which see none but
   its first `keys`. p: room for (R, heads of a layer, keys); weights (HOST): of one layer behind the other. Runs no
   layer after the last of them. */
struct look {
    const int32_t *layers, *rows;
    int n_layers, R, keys;
    float *p, *weights;
};
int text_look(struct activations *a, const struct rows *r, const struct look *look);
/* What text_forward would leave in `a` (STASH_ALL from STASH_ALL, STASH_INPUTS from either), from where a forward
   saved it */
int text_load(struct activations *a, const struct rows *r, const struct stash_rows *from);
/* a->hidden (n, d) = final norm of rows[0..n) of the batch just run */
int text_pick(struct activations *a, const int32_t *rows, int n);
/* One token for each of r->N slots, which see r->keys: a->hidden (N, d) = final-normed states */
int text_decode(struct activations *a, const struct rows *r, const struct stash_rows *copy);

/* targets' logp and entropy; a->hidden holds their rows */
int text_head(struct activations *a, const struct targets *t, float inv_temperature);
/* Logits of a->hidden and one token of each row: ops.def, logits and sample */
int text_logits(struct activations *a, float *z, int n);
struct drawing {
    struct sampled *drawn;
    int32_t *next;
    uint8_t *seen;
    const struct sampler *sampler;
    const struct sample_key *keys;
};
int text_sample(struct activations *a, const struct drawing *d, int n);

/* After text_forward or text_load with activations that stash, and text_pick: logp and entropy as text_head, and
   grads (fp32 arena) += gradient of sum coef logp + ecoef entropy, except the embedding's: its dx (N, d) is left in
   a->dx for text_embed_backward, which the caller runs after the step's last micro-batch. A tied embedding collects
   head and scatter in one buffer, and only this order is the same for every split of the step ("same seed, same
   run"). */
int text_backward(struct activations *a, const struct rows *r, const struct targets *t, const struct gradients *grads,
                  float inv_temperature);
int text_embed_backward(const struct weights *w, const struct gradients *grads, const real *dx, const int32_t *ids,
                        int N);

/* E_CONFIG unless both are positive and finite */
int inverse_temperature(float *out, float temperature);

#endif
