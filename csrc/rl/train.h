/* Floor 3: gradients and AdamW of one model, worked through in micro-batches of whole groups. Master weights are fp32: the
   model's working weights and, beside them, the 16 bits that bfloat16 lacks, or 8 of these. Every sum over tokens runs in the order of the
   groups, whatever the split (C2). */
#ifndef GRPO_TRAIN_H
#define GRPO_TRAIN_H

#include "rl/batch.h"
#include "rl/loss.h"

struct train_config {
    float beta1, beta2, eps, weight_decay;
    int token_budget, recompute;
    enum moment_dtype moments;             /* all but float32 are rounded stochastically from `seed` and steps_taken (ops.def: adamw) */
    enum master_dtype masters;             /* likewise */
    uint64_t seed;
};

struct trainer {
    struct model *m;
    struct train_config config;
    int64_t steps_taken;                   /* AdamW's t */
    float *grads;                          /* (m->n_elements) */
    void *lower;                           /* (m->n_elements) of the masters; NULL without an optimiser, or where working weights are fp32 */
    void *moment1, *moment2;               /* param_moment_bytes() of each parameter in turn; NULL without an optimiser */
    struct activations acts;
    struct batch batch;
    /* gradient of the embedding rows of every token of the step, added up at its end (see text_backward) */
    real *embed_dx;                        /* (embed_max, d) */
    int32_t *embed_ids;                    /* (embed_max) */
    int embed_n, embed_max;
};

/* Bytes of the arenas above; moments: of both together */
struct trainer_sizes { size_t grads, lower, moments; };
struct trainer_sizes trainer_sizes(const struct ops *ops, const struct config *c, enum moment_dtype moments, enum master_dtype masters);
extern const char *const moment_dtypes[MOMENT_DTYPES], *const master_dtypes[MASTER_DTYPES];         /* their names */
const char *moment_arena(enum moment_dtype dtype);             /* the name of both in a plan */
/* Rows of embed_dx and embed_ids for a step of so many, with a quarter to spare since steps differ in length; bytes of one */
static inline int embed_room(int rows) { return rows + rows / 4; }
size_t embed_row_bytes(const struct ops *ops, const struct config *c);

/* optimizer 0: gradients only (logprob_grads) */
int trainer_create(struct trainer **out, struct model *m, const struct train_config *config, int optimizer);
void trainer_free(struct trainer *t);

/* A failure while gradients are being added (Ctrl-C, NaN) leaves the gradient 0, never half of it. */

/* gradient += that of sum coef logp + ecoef entropy (flat over completion tokens, HOST; ecoef may be NULL).
   kept (completions, HOST; may be NULL): ids of rollouts whose activations may still be there (model/kept.h); where all of a
   micro-batch's are, its forward is not run. With an optimiser, groups whose coefficients are all 0 are not run: logp and entropy (HOST) stay as they are there. */
int trainer_accumulate(struct trainer *t, float *logp, float *entropy, const struct groups *g, const float *coef, const float *ecoef,
                       float temperature, const int64_t *kept);

/* What loss_eval needs beyond logp and entropy; HOST, flat over completion tokens (advantage: one a completion). */
struct loss_inputs {
    const struct loss_config *config;
    const struct loss_normalizer *normalizer;
    const float *old_logp, *ref_logp, *advantage;
    const uint8_t *mask;
};
/* loss += ; forward, loss, backward, a micro-batch at a time: for updates that are not on policy. */
int trainer_accumulate_loss(struct trainer *t, double *loss, struct loss_metrics *metrics, float *logp, float *entropy,
                            const struct groups *g, const struct loss_inputs *in, float temperature);

/* Embedding gradients into the arena: called by step, and before gradients are read. */
int trainer_flush(struct trainer *t);
/* Clip (max_norm 0: off), AdamW (decay on matrices only), gradient = 0. E_NONFINITE leaves the weights untouched. */
int trainer_step(struct trainer *t, double *norm, float learning_rate, float max_norm);
int trainer_zero_grad(struct trainer *t);

/* State <-> host fp32, by tensor. E_CONFIG for a moment that the trainer's storage cannot hold. */
enum trainer_state { STATE_MASTER, STATE_M, STATE_V, STATE_GRADIENT };
int trainer_get(struct trainer *t, float *host, enum trainer_state kind, const struct tensor *tensor);
int trainer_set(struct trainer *t, enum trainer_state kind, const struct tensor *tensor, const float *host);

#endif
