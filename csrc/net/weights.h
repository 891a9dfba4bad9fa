/* Floor 3: the values of a spec on a device: one arena of working weights. Weights know nobody: who trains them,
   mixes them or keeps what they computed holds that himself and looks at `version`. */
#ifndef GRPO_WEIGHTS_H
#define GRPO_WEIGHTS_H

#include <assert.h>

#include "net/spec.h"

struct weights {
    struct spec spec;
    struct device device;
    struct param *params;      /* in storage order */
    int n_params;
    struct param **by_slot;    /* ((1 + n_parts) SLOTS) of a layer's slot, or NULL; layer -1 first */
    size_t n_elements;         /* of an arena of the network's shape; see ALIGN_ELEMENTS */
    void *arena;               /* behind every param.w */
    float *inv_freq;           /* (n_ropes, pairs) */
    int32_t *axis;             /* (n_ropes, pairs) */
    int pairs;                 /* of the widest heads; where ropes stretch, of all */
    uint64_t version;          /* one more with every change of a weight */
};

/* Zeros. The weights have a copy of the spec and use the device, which must outlive them. */
int weights_create(struct weights **out, const struct device *device, const struct spec *spec);
void weights_free(struct weights *w);
size_t weights_bytes(const struct ops *ops, const struct spec *spec);

/* NULL: this network has no such parameter. layer: as in struct param */
static inline struct param *param_of(const struct weights *w, int layer, enum slot slot) {
    assert(layer >= -1 && layer < n_parts(&w->spec) && slot < SLOTS);
    return w->by_slot[(layer + 1) * SLOTS + (int)slot];
}
static inline void *values_of(const struct weights *w, int layer, enum slot slot) {
    const struct param *p = param_of(w, layer, slot);
    return p ? p->w : NULL;
}
/* Room for the gradients of those parameters of a network that are trained: of param i at at[i], which is not there
   (NOT_TRAINED) for the others */
#define NOT_TRAINED SIZE_MAX
struct gradients {
    float *arena;
    const size_t *at;          /* (n_params) */
};
/* NULL also for what is not trained */
static inline float *gradient_of(const struct weights *w, const struct gradients *g, int layer, enum slot slot) {
    const struct param *p = param_of(w, layer, slot);
    size_t at = p ? g->at[p - w->params] : NOT_TRAINED;
    return at == NOT_TRAINED ? NULL : g->arena + at;
}
/* Bytes of n rows of the residual stream, (n, d) reals */
static inline size_t stream_bytes(const struct weights *w, int n) {
    return (size_t)n * (size_t)w->spec.d_model * (size_t)w->device.ops->real_size;
}
static inline const float *inv_freq_of(const struct weights *w, int rope) {
    return w->inv_freq + (size_t)rope * (size_t)w->pairs;
}
/* NULL where positions have one axis */
static inline const int32_t *axis_of(const struct weights *w, int rope) {
    return w->spec.axes > 1 ? w->axis + (size_t)rope * (size_t)w->pairs : NULL;
}

/* Rows of one parameter: a Hugging Face tensor, or some of its rows */
struct tensor {
    const struct param *param;
    int row, rows;
};
int tensor_find(struct tensor *out, const struct weights *w, const char *name);
static inline size_t tensor_offset(const struct tensor *t) {
    return t->param->offset + (size_t)t->row * param_columns(t->param);
}
static inline size_t tensor_size(const struct tensor *t) { return (size_t)t->rows * param_columns(t->param); }
/* The next rows of a tensor that staging memory should hold; begin with {.param = NULL}. 0: there are no more. */
int tensor_next(struct tensor *piece, const struct tensor *whole);

/* Files may have the rows of a tensor in another order than its parameter (spec.h: interleaved). Turns host (rows, C)
   or (rows) into the other of the two: arrays that come and go by name are as files have them, all else here speaks of
   the parameter's order. */
int tensor_as_in_files(const struct weights *w, const struct tensor *t);        /* the two are the same */
int tensor_from_file(float *host, const struct weights *w, const struct tensor *t);
int tensor_to_file(float *host, const struct weights *w, const struct tensor *t);

/* Working weights <-> host fp32, (rows, C) or (rows) */
int weights_set(struct weights *w, const struct tensor *t, const float *host);
int weights_get(const struct weights *w, const struct tensor *t, float *host);
/* Working weights of every parameter <-> an fp32 arena of the device */
int weights_pack(struct weights *w, const float *arena);
int weights_unpack(const struct weights *w, float *arena);

#endif
