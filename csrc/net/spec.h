/* Floor 3: a network as data. A family of models is a function (in Python: grpo/model/families) that turns its
   config into a spec; the code that runs a network walks the spec and asks for nothing else. The table of parameters
   is params.def. */
#ifndef GRPO_SPEC_H
#define GRPO_SPEC_H

#include "ops/device.h"

enum { HEAD_DIM_MAX = 256, LAYERS_MAX = 1024, ROPES_MAX = 8, PIECES = 3, NAME_MAX_BYTES = 64 };
enum { ALIGN_ELEMENTS = 16 };          /* every parameter begins at a multiple of so many elements of an arena */

enum slot {
#define P(slot, ...) P_##slot,
#include "net/params.def"
#undef P
    SLOTS
};
enum scope { TOP, MODEL, LAYER };

struct attention_spec {
    int heads, kv_heads, head_dim;
    int window;                /* keys that a query sees, its own included; 0: all before it */
    int rope;                  /* which of the network's ropes turns its queries and keys */
    float scale;               /* of the scores */
    int qkv_bias, qk_norm;     /* biases of q, k, v; an RMSNorm a head of q and of k */
};
struct mlp_spec {
    int width;
    enum glu_gate gate;
};
struct layer_spec {
    struct attention_spec attention;
    struct mlp_spec mlp;
    int post_norms;            /* each half's result is normed too, before it joins the residual stream */
};
struct rope_spec {
    float scale;               /* of cosines and sines */
    float inv_freq[HEAD_DIM_MAX / 2];
};

struct spec {
    int d_model, vocab_size, n_layers, n_ropes;
    int max_positions;         /* longer sequences are refused; 0: no limit */
    int tie;                   /* the head is the embedding */
    float eps, norm_offset;    /* of every RMSNorm: x rstd (norm_offset + w) */
    float embed_scale;
    struct layer_spec *layers; /* (n_layers) */
    struct rope_spec *ropes;   /* (n_ropes) */
    char prefix[NAME_MAX_BYTES];                       /* of Hugging Face names: "model." */
    char names[SLOTS][PIECES][NAME_MAX_BYTES];         /* of each piece, without prefix or layer; "": no piece */
};

/* n_layers layers and n_ropes ropes of zeros, the names of params.def; spec_free() also after a failure */
int spec_create(struct spec *s, int n_layers, int n_ropes);
int spec_copy(struct spec *to, const struct spec *from);
void spec_free(struct spec *s);
/* E_CONFIG that names the layer and the key of what cannot be run */
int spec_check(const struct spec *s);
int spec_equal(const struct spec *a, const struct spec *b);

static inline int qkv_width(const struct attention_spec *a) { return (a->heads + 2 * a->kv_heads) * a->head_dim; }
static inline int heads_width(const struct attention_spec *a) { return a->heads * a->head_dim; }
static inline struct attention_shape shape_of_attention(const struct attention_spec *a) {
    return (struct attention_shape){a->heads, a->kv_heads, a->head_dim, a->window, a->scale, SEES_BEFORE};
}

/* Columns of a layer's buffers; or the largest of any layer, which buffers that layers share must hold */
struct widths {
    int model, qkv, heads, mlp, n_heads, n_kv_heads, head_dim, post_norms;
};
struct widths layer_widths(const struct spec *s, int layer);
struct widths spec_widths(const struct spec *s);

/* A stored parameter: the pieces of a slot, one below the other */
struct param {
    enum slot slot;
    int layer;                 /* -1: of the whole model */
    int O, C;                  /* rows of all pieces; columns, 0 for a vector */
    int rows[PIECES];          /* of each piece; 0: there is none */
    size_t offset;             /* of its first element in an arena of the network's shape (gradients, masters) */
    void *w;                   /* the working weights: a packed matrix (O, C) or a float vector (O); weights.h */
};
static inline size_t param_columns(const struct param *p) { return (size_t)(p->C ? p->C : 1); }
static inline size_t param_size(const struct param *p) { return (size_t)p->O * param_columns(p); }

/* Calls visit for every parameter of the spec in storage order, with its offset; ends with what visit returns,
   unless 0. elements: size of an arena of the network's shape; may be NULL. */
typedef int (*param_visitor)(void *arg, const struct param *p);
int spec_visit(const struct spec *s, param_visitor visit, void *arg, size_t *elements);
size_t spec_elements(const struct spec *s);
/* Full Hugging Face name of a piece */
void tensor_name(char *name, size_t size, const struct spec *s, const struct param *p, int piece);
enum { TENSOR_NAME_MAX = 2 * NAME_MAX_BYTES + 32 };

#endif
