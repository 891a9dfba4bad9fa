/* Floor 4: gradients and AdamW of one model, worked through in micro-batches of whole groups. Master weights are
   fp32: the working weights and, beside them, the 16 bits that bfloat16 lacks, or 8 of these, which are the
   trainer's own. Every sum over tokens runs in the order of the groups, whatever the split ("same seed, same run").
   Gradients: accumulate.c; memory and the step: optimizer.c; masters: masters.c; moments on the host: state.c. */
#ifndef GRPO_TRAINER_H
#define GRPO_TRAINER_H

#include "net/batch.h"
#include "net/store.h"
#include "net/text.h"
#include "net/vision.h"
#include "net/workspace.h"

/* What of a tower is trained */
enum vision_training { VISION_FROZEN, VISION_MERGERS, VISION_ALL, VISION_TRAININGS };
extern const char *const vision_trainings[VISION_TRAININGS];

struct train_config {
    float beta1, beta2, eps, weight_decay;
    int token_budget, recompute;
    int gradients_only;                  /* no optimiser: neither masters nor moments */
    /* all but float32 are rounded stochastically, from `seed` and steps_taken (ops.def: adamw) */
    enum moment_dtype moments;
    enum master_dtype masters;
    uint64_t seed;
    enum vision_training vision;
    float vision_rate;                   /* the tower's learning rate as a multiple of the text's */
};

/* What training holds of one network: of the parameters that are trained, in their order. */
struct param_group {
    struct weights *weights;
    size_t *at;                          /* (n_params) where each one's numbers begin, or NOT_TRAINED */
    size_t n_elements;                   /* of the arenas */
    size_t first;                        /* number of its first element among all of the trainer's */
    float rate;                          /* learning rate as a multiple of the trainer's */
    float *grads;                        /* (n_elements) */
    /* without an optimiser all three are NULL; lower also where working weights are fp32 */
    void *lower;                         /* (n_elements) bits of the masters beyond the working weights */
    void *moment1, *moment2;             /* param_moment_bytes() of each parameter in turn */
    uint64_t version;                    /* of the weights that `lower` belongs to: masters.c, follow_weights() */
};
enum { GROUP_TEXT, GROUP_TOWER, GROUPS_MAX };
static inline struct gradients gradients_of(const struct param_group *g) { return (struct gradients){g->grads, g->at}; }

struct trainer {
    struct weights *weights;             /* of the text */
    struct workspace *workspace;         /* of the model's holder: activations lie there during a call */
    struct train_config config;
    int64_t steps_taken;                 /* AdamW's t */
    struct param_group groups[GROUPS_MAX];
    int n_groups;                        /* 2: the tower is trained too */
    struct tower tower;                  /* only then */
    struct activations acts;
    struct batch batch;
    /* gradient of the embedding rows of every token of the step, added up at its end (see text_backward) */
    real *embed_dx;                      /* (embed_max, d) */
    int32_t *embed_ids;                  /* (embed_max) */
    int embed_n, embed_max;
    /* for whoever holds all trainers of the weights: the next one; this one is to be freed */
    struct trainer *next;
    int abandoned;
};

/* Bytes of the arenas of a text or a tower; moments: of both together. vision: what of a tower is trained */
struct trainer_sizes {
    size_t grads, lower, moments;
};
struct trainer_sizes trainer_sizes(const struct ops *ops, const struct spec *s, enum vision_training vision,
                                   enum moment_dtype moments, enum master_dtype masters);
/* Rows of the tower in the largest micro-batch: no group has more than `share` of them for a row of text, nor more than
   `largest` of them, the step has `all` of them */
int tower_rows(const struct spec *tower, double share, int largest, int64_t all, int token_budget);
/* What the backward of a tower needs: that of its mergers reads their layers' results, and nothing of the layers. */
static inline enum stashing tower_stashing(enum vision_training vision, int recompute) {
    return recompute || vision == VISION_MERGERS ? STASH_INPUTS : STASH_ALL;
}
/* Whether a parameter is among those that are trained */
int is_trained(const struct spec *s, const struct param *p, enum vision_training vision);
/* Rows of embed_dx and embed_ids for a step of so many, with a quarter to spare since steps differ in length; bytes
   of one */
static inline int embed_room(int rows) { return rows + rows / 4; }
size_t embed_row_bytes(const struct ops *ops, const struct spec *s);
/* Storage of each of a parameter's two moments, and its bytes: vectors are not worth 8 bits, and have bfloat16
   beside float8 */
static inline enum moment_dtype param_moments(const struct param *p, enum moment_dtype dtype) {
    return dtype == MOMENT_FLOAT8 && !p->C ? MOMENT_BFLOAT16 : dtype;
}
size_t param_moment_bytes(const struct param *p, enum moment_dtype dtype);
/* Names of dtypes; of both moments together in a plan */
extern const char *const moment_dtypes[MOMENT_DTYPES], *const master_dtypes[MASTER_DTYPES];
const char *moment_arena(enum moment_dtype dtype);

/* tower: beside the text's weights, or NULL */
int trainer_create(struct trainer **out, struct weights *w, struct weights *tower, struct workspace *workspace,
                   const struct train_config *config);
void trainer_free(struct trainer *t);

/* A failure while gradients are being added (Ctrl-C, NaN) leaves the gradient 0, never half of it. */

/* gradient += that of sum coef logp + ecoef entropy (flat over completion tokens, HOST; ecoef may be NULL). store,
   ids (completions, HOST): of rollouts whose activations may still be there; where all of a micro-batch's are, its
   forward is not run. Both may be NULL. With an optimiser, groups whose coefficients are all 0 are not run: logp and
   entropy (HOST) stay as they are there. */
struct coefficients {
    const float *coef, *ecoef;
};
int trainer_accumulate(struct trainer *t, float *logp, float *entropy, const struct groups *g,
                       const struct coefficients *c, float temperature, const struct store *store, const int64_t *ids);

/* An objective that needs log-probs first, for updates that are not on policy: called with the completions [first,
   first + n) of a micro-batch once logp and entropy of their tokens are known, and fills in coef and ecoef there. All
   four are flat over the tokens of all completions of g. */
struct objective {
    int (*evaluate)(void *arg, float *coef, float *ecoef, const float *logp, const float *entropy,
                    const struct groups *g, int first, int n);
    void *arg;
    int has_ecoef;
};
/* Forward, objective, backward, a micro-batch at a time */
int trainer_accumulate_objective(struct trainer *t, float *logp, float *entropy, const struct groups *g,
                                 const struct objective *o, float temperature);

/* Embedding gradients into the arena: called by step, and before gradients are read. */
int trainer_flush(struct trainer *t);
/* Clip (max_norm 0: off), AdamW (decay on matrices only), gradient = 0. E_NONFINITE leaves the weights untouched. */
int trainer_step(struct trainer *t, double *norm, float learning_rate, float max_norm);
int trainer_zero_grad(struct trainer *t);

/* The group that trains a tensor, or NULL */
struct param_group *group_of(struct trainer *t, const struct tensor *tensor);
static inline size_t group_offset(const struct param_group *g, const struct tensor *tensor) {
    return g->at[tensor->param - g->weights->params] + (size_t)tensor->row * param_columns(tensor->param);
}

/* State <-> host fp32, by tensor. E_CONFIG for a moment that the trainer's storage cannot hold, and for a tensor that
   it does not train. */
enum trainer_state { STATE_M, STATE_V, STATE_GRADIENT };
int trainer_get(struct trainer *t, float *host, enum trainer_state kind, const struct tensor *tensor);
int trainer_set(struct trainer *t, enum trainer_state kind, const struct tensor *tensor, const float *host);
/* What trainer_set would say to these moments; nothing moves. */
int trainer_check(struct trainer *t, enum trainer_state kind, const struct tensor *tensor, const float *host);

/* After somebody else changed the weights, the masters of a group are those, exactly. */
int follow_weights(const struct trainer *t, struct param_group *g);
/* Masters. Working weights that somebody else changed (another trainer's step, a mixture) are the masters then,
   exactly. */
int trainer_get_master(struct trainer *t, float *host, const struct tensor *tensor);
/* Working weights = host (HOST, fp32) rounded, and the masters of every trainer in the list from `first` on = host,
   as near as they can hold it: exactly where they are float32, or where host's numbers are float24. first may be
   NULL. */
int trainers_set_weights(struct trainer *first, struct weights *w, const struct tensor *tensor, const float *host);
/* E_CONFIG if the trainer's masters cannot hold a number of host */
int trainer_check_master(struct trainer *t, const struct tensor *tensor, const float *host);

#endif
