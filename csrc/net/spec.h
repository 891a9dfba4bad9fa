/* Floor 3: a network as data. A family of models is a function (in Python: grpo/model/families) that turns its
   config into a spec; the code that runs a network walks the spec and asks for nothing else. The table of parameters
   is params.def. */
#ifndef GRPO_SPEC_H
#define GRPO_SPEC_H

#include "ops/device.h"

enum { HEAD_DIM_MAX = 256, LAYERS_MAX = 1024, ROPES_MAX = 8, AXES_MAX = 3, MERGERS_MAX = 8 };
enum { PIECES = 3, NAME_MAX_BYTES = 64, TENSOR_DIMS = 5 };
enum { ALIGN_ELEMENTS = 16 };          /* every parameter begins at a multiple of so many elements of an arena */

enum slot {
#define P(slot, ...) P_##slot,
#include "net/params.def"
#undef P
    SLOTS
};
enum scope { TOP, MODEL, LAYER, MERGER, RESAMPLER };

struct attention_spec {
    int heads, kv_heads, head_dim;
    int window;                /* keys that a query sees, its own included; 0: all before it */
    int rope;                  /* which of the network's ropes turns its queries and keys; see stretch_of() */
    float scale;               /* of the scores */
    int qkv_bias, qk_norm;     /* biases of q, k, v; an RMSNorm a head of q and of k */
    int o_bias;                /* a bias of the projection back */
    enum sight sight;          /* of a row's segment: of rows->windows where `by_window`, else of rows->segments */
    int by_window;
    int interleaved;           /* files have q, k and v of the first head, then those of the next (weights.h) */
};
/* Of an MLP with a gate: glu_gate; of a plain one: gelu_kind */
struct mlp_spec {
    int width, gated, gate, bias;
};
struct layer_spec {
    struct attention_spec attention;
    struct mlp_spec mlp;
    int post_norms;            /* each half's result is normed too, before it joins the residual stream */
};
struct rope_spec {
    float scale;               /* of cosines and sines */
    int axis[HEAD_DIM_MAX / 2];                        /* of a position, by which a pair turns */
    float inv_freq[HEAD_DIM_MAX / 2];
};
enum norm_kind { NORM_RMS, NORM_LAYER, NORM_KINDS };

/* What makes a network a tower, which sees images (vision.h). A patch is a row of pixels; side x side patches make a
   cell, whose rows become one feature. */
struct merger_spec {
    int after;                 /* the layer whose result it reads */
    int joined;                /* its norm is of a whole cell, not of each patch */
};
enum table_kind { TABLE_BILINEAR, TABLE_BICUBIC, TABLE_KINDS };
struct vision_spec {
    int patch_shape[4];        /* channels, frames, height, width of a patch; 0: this network is no tower */
    int patch_bias;
    int still;                 /* files have no dimension of frames, of which there is one */
    int side;
    int grid_side;             /* of the square grid of patches that every image has; 0: they may have any */
    int table_side;            /* of a square table of positions, interpolated to each image's grid; 0: none */
    enum table_kind table;     /* how: bilinear from corner to corner, or bicubic from edge to edge */
    int entry_norm;            /* a norm before the first layer */
    int window;                /* cells along each side of a window; 0: there are none */
    int out;                   /* columns of a feature */
    enum gelu_kind gelu;       /* of the mergers */
    int n_mergers;             /* the last one reads the last layer */
    struct merger_spec mergers[MERGERS_MAX];
    int queries;               /* of a resampler (resampler.h), in place of mergers; 0: none */
    struct attention_spec pool;          /* its own */
};

struct spec {
    int d_model, vocab_size, n_layers, n_ropes;
    int axes; /* numbers of a position: 1; of text among images, of a tower more (ops.def: rope_table) */
    int levels;                /* of vectors that enter a text's rows (rows.h): those of the tower beside it, or 0 */
    int max_positions;         /* longer sequences are refused; 0: no limit */
    int stretch_after;         /* tokens of a prompt; longer ones stretch their sequence's ropes; 0: none does */
    int log_after;             /* queries beyond so many tokens are scaled (ops.def: log_scale); 0: none are */
    int tie;                   /* the head is the embedding */
    enum norm_kind norm;
    float eps, norm_offset;    /* of every RMSNorm: x rstd (norm_offset + w) */
    float embed_scale;
    struct vision_spec vision;
    struct layer_spec *layers; /* (n_layers) */
    struct rope_spec *ropes;   /* (n_ropes) */
    /* of Hugging Face names: "model."; after it "layers.", before the number of a layer, or "merger." */
    char prefix[NAME_MAX_BYTES], layer_prefix[NAME_MAX_BYTES], merger_prefix[MERGERS_MAX][NAME_MAX_BYTES];
    /* of each piece, without these; "": no piece. One name where the table has several: one tensor holds them all */
    char names[SLOTS][PIECES][NAME_MAX_BYTES];
};
static inline int is_tower(const struct spec *s) { return s->vision.patch_shape[0] > 0; }
static inline int patch_columns(const struct spec *s) {
    const int *shape = s->vision.patch_shape;
    return shape[0] * shape[1] * shape[2] * shape[3];
}
/* Numbers of a row's position (rows.h): its place and, where ropes stretch, how often those of its sequence are */
static inline int position_axes(const struct spec *s) { return s->axes + (s->stretch_after > 0); }
/* That number n, of a whole sequence, by the tokens of its prompt: the smallest with tokens <= 2^n stretch_after. A
   layer then turns by the rope n after its own. */
static inline int stretch_of(const struct spec *s, int prompt_length) {
    int n = 0;
    while (s->stretch_after && (int64_t)s->stretch_after << n < prompt_length) n++;
    return n;
}
/* Patches of a cell, and the columns of all its rows of the residual stream beside each other */
static inline int cell_patches(const struct spec *s) { return s->vision.side * s->vision.side; }
static inline int cell_columns(const struct spec *s) { return cell_patches(s) * s->d_model; }
/* What has parameters of its own: layers, then mergers or the resampler */
static inline int n_parts(const struct spec *s) { return s->n_layers + (s->vision.queries ? 1 : s->vision.n_mergers); }

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
    return (struct attention_shape){a->heads, a->kv_heads, a->head_dim, a->window, a->scale, a->sight};
}

/* Columns of a layer's buffers; or the largest of any layer, which buffers that layers share must hold. up: of what the
   MLP multiplies first, gate and all */
struct widths {
    int model, qkv, heads, mlp, up, n_heads, n_kv_heads, head_dim, post_norms;
};
struct widths layer_widths(const struct spec *s, int layer);
struct widths spec_widths(const struct spec *s);

/* A stored parameter: the pieces of a slot, one below the other */
struct param {
    enum slot slot;
    int layer;                 /* -1: of the whole model; n_layers + k: of merger k, or of the resampler */
    int O, C;                  /* rows of all pieces; columns, 0 for a vector */
    int rows[PIECES];          /* of each piece; 0: there is none */
    size_t offset;             /* of its first element in an arena of the network's shape (gradients, masters) */
    void *w;                   /* the working weights: a packed matrix (O, C) or a float vector (O); weights.h */
};
static inline size_t param_columns(const struct param *p) { return (size_t)(p->C ? p->C : 1); }
static inline size_t param_size(const struct param *p) { return (size_t)p->O * param_columns(p); }
/* What it takes of an arena */
static inline size_t padded_size(const struct param *p) {
    return (param_size(p) + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

/* Calls visit for every parameter of the spec in storage order, with its offset; ends with what visit returns,
   unless 0. elements: size of an arena of the network's shape; may be NULL. */
typedef int (*param_visitor)(void *arg, const struct param *p);
int spec_visit(const struct spec *s, param_visitor visit, void *arg, size_t *elements);
size_t spec_elements(const struct spec *s);
/* Hugging Face shape of a piece: its dimensions, of which there are as many as returned */
int tensor_shape(int shape[TENSOR_DIMS], const struct spec *s, const struct param *p, int piece);
/* Full Hugging Face name of a piece */
void tensor_name(char *name, size_t size, const struct spec *s, const struct param *p, int piece);
enum { TENSOR_NAME_MAX = 3 * NAME_MAX_BYTES + 32 };

#endif
