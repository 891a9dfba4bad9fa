/* Floor 2: a model on one backend: its shape, its parameters, and what runs them (text.h).
   rl/ and python/ may call this; nothing here asks which backend it runs on. */
#ifndef GRPO_MODEL_H
#define GRPO_MODEL_H

#include "base/base.h"
#include "ops/device.h"

struct config {
    int n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab_size;
    float rms_eps;
    int tie, qkv_bias, qk_norm;
};
static inline struct attention_shape config_attention(const struct config *c) {
    return (struct attention_shape){c->n_heads, c->n_kv_heads, c->head_dim, 0, 1 / sqrtf((float)c->head_dim)};
}
static inline int config_qkv(const struct config *c) { return (c->n_heads + 2 * c->n_kv_heads) * c->head_dim; }
static inline int config_heads(const struct config *c) { return c->n_heads * c->head_dim; }
int config_check(const struct config *c);

enum param_id {
#define P(field, ...) P_##field,
#include "model/params.def"
#undef P
    PARAM_IDS
};

struct param {
    enum param_id id;
    int layer;                 /* -1: of the whole model */
    int O, C;                  /* rows of all pieces; columns, 0 for a vector */
    const char *name[3];       /* Hugging Face name of each stacked piece, without the layer's prefix */
    int rows[3];
    size_t offset;             /* of its first element in every arena of the model's shape (gradients, lower) */
    void *w;                   /* working copy: packed weight (O, C) or float vector (O); NULL = this model has none */
};
static inline size_t param_size(const struct param *p) { return (size_t)p->O * (size_t)(p->C ? p->C : 1); }
/* Storage of each of its two moments, and its bytes: vectors are not worth 8 bits, and have bfloat16 beside float8 */
static inline enum moment_dtype param_moments(const struct param *p, enum moment_dtype dtype) {
    return dtype == MOMENT_FLOAT8 && !p->C ? MOMENT_BFLOAT16 : dtype;
}
size_t param_moment_bytes(const struct param *p, enum moment_dtype dtype);

struct model {
    struct config config;
    struct device device;
    struct param *params;      /* MODEL ones first, then layer by layer */
    int n_params;
    size_t n_elements;         /* of one such arena; each parameter starts at a multiple of 16 */
    void *weights;             /* the arena behind every param.w */
    float *inv_freq;           /* (D/2) */
    float *mixed;              /* fp32 weights of a reference that is mixed, else NULL */
    void *lower;               /* (n_elements) of the trainer at work: with the working weights, its masters (ops.def: adamw).
                                  NULL: nothing trains, or the working weights are fp32 themselves */
    enum master_dtype masters; /* of the trainer at work */
    uint64_t version;          /* of the weights: one more with every change */
    struct kept *kept;         /* kept.h */
    void *workspace;           /* model_workspace() */
    size_t workspace_bytes;
};

int model_create(struct model **out, const char *device, const struct config *config, const float *inv_freq);
void model_free(struct model *m);
size_t model_weight_bytes(const struct ops *ops, const struct config *c);
size_t model_elements(const struct config *c);
size_t model_moment_bytes(const struct config *c, enum moment_dtype dtype);      /* of one of the two */
struct param *model_param(const struct model *m, int layer, enum param_id id);

/* One piece of a parameter, found by its full Hugging Face name; NULL when this model has no such tensor. */
struct tensor { const struct param *param; int row, rows; };
int model_find(struct tensor *out, const struct model *m, const char *name);
void model_tensor_name(char *name, size_t size, const struct param *p, int piece);

/* Backend memory for the call at hand: activations and KV pages of rollouts, scores and updates, which never overlap and so
   share it. Grown by the largest call so far; holds anything. */
int model_workspace(struct model *m, void **out, size_t bytes);

/* Working weights <-> host fp32, (rows, C) or (rows). While a trainer is at work, its master is set to all of host's bits. */
int model_set(struct model *m, const struct tensor *t, const float *host);
int model_get(const struct model *m, const struct tensor *t, float *host);
int model_get_master(const struct model *m, const struct tensor *t, float *host);
/* Where a tensor begins in an arena, and its number of elements */
size_t tensor_offset(const struct tensor *t);
size_t tensor_size(const struct tensor *t);
/* Working weights of every parameter <-> an fp32 arena of the backend. */
int model_pack(struct model *m, const float *arena);
int model_unpack(const struct model *m, float *arena);
/* weights = alpha * other + (1 - alpha) * weights; fp32 kept from the first call on, so that small alphas are not lost */
int model_mix(struct model *m, const struct model *other, float alpha);

#endif
