/* Floor 1: the types of the operations, and their table. What each computes stands in ops.def. Backends (ref/, cpu/,
   cuda/) fill one `const struct ops` each; the floors above call it through device.h and never ask which it is. */
#ifndef GRPO_OPS_H
#define GRPO_OPS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/each.h"

typedef void real;              /* element size: ops->real_size */
typedef void weight;            /* packed (O, C) matrix, weight_bytes() long */
typedef float vector;           /* rounded to what a real holds */

enum { KV_TILE = 32, ROW_ALIGN = 32 };

/* Rows [start, start+len) of the packed batch are one run of consecutive positions prefix_len, prefix_len+1, ...
   Row start+i sees rows [prefix, prefix+prefix_len), which hold positions 0..prefix_len-1, and of its own segment what
   enum sight says, mostly rows start..start+i.
   A prompt is {start, P, 0, 0}; its completions follow as {start', n, start, P}: they share it, none sees another.
   Rows that attend across are {start', n, start, P} too; their keys' segment {start, P, 0, 0} sees nothing itself. */
struct segment {
    int32_t start, len, prefix, prefix_len;
};

/* What the largest call will need; reserve() turns it into scratch. weights (HOST): the shapes that linear and its
   gradients will meet; a backend that chooses a method for each chooses then, and serves any other when it comes. */
struct weight_shape {
    int O, C;
};
struct op_limits {
    int rows, head_rows, slots, channels, heads, kv_heads, head_dim, vocab, segments, max_position, shared_pages;
    int n_weights;
    const struct weight_shape *weights;
};

/* One sampling distribution: logits -> repetition penalty -> forbidden ids removed -> / temperature -> top-k -> top-p
   -> min-p, as transformers orders them. HOST struct; its pointers are backend memory. temperature 0 = greedy (lowest
   id among equals), its log-probs are those of temperature 1. */
struct sampler {
    float temperature, top_p, min_p, repetition_penalty;
    int top_k;                       /* 0 = off */
    int n_stop;
    const int32_t *stop_ids;         /* (n_stop) forbidden where the key says no_stop (min_new_tokens) */
    const uint8_t *forbidden;        /* (V) 1 = never sampled, or NULL */
};
struct sample_key {
    uint64_t seed;
    uint32_t step, prompt, sample, position, no_stop;
};
struct sampled {
    int32_t id;                      /* -1: the logits were not finite */
    float logp;                      /* log-probability on the truncated support it was drawn from */
    float policy_logp;               /* log softmax(z / temperature)[id] over the whole vocabulary, as of head() */
    float entropy;                   /* of that whole softmax, as of head() */
};

/* What a row sees of its segment, beside the whole prefix: the rows up to itself; all rows (a frame of a vision tower,
   or a window of it, is a segment); or none (cross attention: the keys are the prefix's). A row that sees nothing has
   y = 0, lse = 0 and no gradient of its query. */
enum sight { SEES_BEFORE, SEES_ALL, SEES_PREFIX, SIGHTS };

/* The heads of a layer's attention, of queries and of keys (values), and their width. window: keys that a query sees,
   its own included; 0: all before it. So a query at position p sees key k if k <= p and (window == 0 or
   p - k < window); of another sight than SEES_BEFORE there is no window. scale: of the scores. What goes row by row or
   over a cache (rope, kv_store, attention_decode) does not ask for the sight: a cache holds what was before. */
struct attention_shape {
    int Hq, Hkv, D;
    int window;
    float scale;
    enum sight sight;
};

/* Keys [first_key, end_key) are what a query at a position sees; first_key and SEES_BEFORE's end need no segment. */
static inline int first_key(int position, int window) {
    return window && position >= window ? position - window + 1 : 0;
}
static inline int end_key(int position, const struct segment *s, enum sight sight) {
    return sight == SEES_BEFORE ? position + 1 : s->prefix_len + (sight == SEES_ALL ? s->len : 0);
}

/* What scores are divided by, in double: sqrt(n) itself, with all its digits, where scale is its float reciprocal. */
static inline double score_divisor(float scale) {
    double n = round(1 / ((double)scale * scale));
    return scale == 1 / sqrtf((float)n) ? sqrt(n) : 1 / (double)scale;
}

/* Where the keys of S rows of decode lie: row s sees length[s] keys (its own included), key p lies in page
   pages[s * max_pages + p / KV_TILE]. shared_pages: so many leading pages may be the same for rows beside each other; a
   hint, no bit depends on it. */
struct key_pages {
    const int32_t *pages, *length;
    int max_pages, shared_pages;
};      /* (S, max_pages), (S) */

/* RMSNorm of each head of q and of k before it is rotated, with weights (D): n (offset + w). */
struct head_norm {
    const vector *wq, *wk;
    float offset, eps;
};

/* The gate of an MLP: g sigmoid(g), or g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))) / 2. */
enum glu_gate { GLU_SILU, GLU_GELU_TANH, GLU_GATES };

/* Rows of the head: hidden states and what each should predict; the results; and for the backward of
   sum_i coef[i] logp[i] + ecoef[i] entropy[i] its coefficients (coef NULL: no backward; ecoef NULL: no entropy) and
   dh. Its pointers are backend memory. */
struct head_rows {
    int R;
    const real *h;                   /* (R, C) */
    const int32_t *target;           /* (R) */
    float *logp, *entropy;           /* (R) */
    const float *coef, *ecoef;       /* (R) */
    real *dh;                        /* (R, C) */
};

/* Which gate a GELU has: Phi, its approximation by tanh, or by a sigmoid. */
enum gelu_kind { GELU_ERF, GELU_TANH, GELU_QUICK, GELU_KINDS };

/* Storage of AdamW's moments m and v. float8 is of matrices (O, C) only: codes of base/float8.h (O, C), and then the
   exponents of their blocks (O, float8_blocks(C)). */
enum moment_dtype { MOMENT_FLOAT32, MOMENT_BFLOAT16, MOMENT_FLOAT8, MOMENT_DTYPES };
static inline size_t moment_element(enum moment_dtype dtype) {
    return dtype == MOMENT_FLOAT32 ? 4 : dtype == MOMENT_BFLOAT16 ? 2 : 1;
}

/* Storage of master weights: of float32's 32 bits, or the upper 24 of them, what is beyond the working weight's 16
   (base.h). */
enum master_dtype { MASTER_FLOAT32, MASTER_FLOAT24, MASTER_DTYPES };
static inline size_t lower_element(enum master_dtype dtype) { return dtype == MASTER_FLOAT32 ? 2 : 1; }
static inline uint16_t load_lower(const void *lower, size_t i, enum master_dtype dtype) {
    return dtype == MASTER_FLOAT32 ? ((const uint16_t *)lower)[i] : (uint16_t)(((const uint8_t *)lower)[i] << 8);
}
static inline void store_lower(void *lower, size_t i, uint32_t bits, enum master_dtype dtype) {
    if (dtype == MASTER_FLOAT32) ((uint16_t *)lower)[i] = (uint16_t)bits;
    else ((uint8_t *)lower)[i] = (uint8_t)(bits >> 8);
}

struct adamw {
    float lr, beta1, beta2, eps, weight_decay, grad_scale, correction1, correction2;
    enum moment_dtype moments;
    enum master_dtype masters;
    uint64_t seed, first;            /* of rounding's random bits; index of w[0] in the model, 4 divides it */
    uint32_t step;
};

/* A parameter of ops.def as C declares it, behind a comma */
#define PARAMETER(parameter) PARAMETER_##parameter
#define PARAMETER_OUT(type, name, ...) , type *name
#define PARAMETER_ADD(type, name, ...) , type *name
#define PARAMETER_MAYBE_ADD(type, name, ...) , type *name
#define PARAMETER_UPDATE(type, name, ...) , type *name
#define PARAMETER_HOST_OUT(type, name) , type *name
#define PARAMETER_IN(type, name, ...) , const type *name
#define PARAMETER_MAYBE_IN(type, name, ...) , const type *name
#define PARAMETER_INDEX(name, ...) , const int32_t *name
#define PARAMETER_MAYBE_INDEX(name, ...) , const int32_t *name
#define PARAMETER_SEGMENTS(name, n) , const struct segment *name, int n
#define PARAMETER_STRUCT(type, name) , const struct type *name
#define PARAMETER_SIZE(name) , int name
#define PARAMETER_COUNT(name) , size_t name
#define PARAMETER_INTEGER(name) , int name
#define PARAMETER_NUMBER(name) , float name
#define PARAMETER_OPTION(name, usual) , float name
#define PARAMETER_CHOICE(type, name, end) , enum type name

struct ops {
    const char *name;                /* "ref" | "cpu" | "cuda" */
    const char *tier;                /* cpu: "amx" | "avx512bf16" | "avx512" | "avx2" | "portable"; "" elsewhere */
    int real_size;
    int lookahead;                   /* decode steps worth issuing before the host looks at their tokens */
    int host_memory;                 /* alloc() gives the host's memory: its arrays may be operands as well */

#define MEMORY(result, name, parameters) result(*name) parameters;
#define PLAN MEMORY
#define OP(name, formula, flops, bytes, ...) int (*name)(void *ctx EACH(PARAMETER, __VA_ARGS__));
#define OP_BY_HAND OP
#include "ops/ops.def"
};

/* A backend at work: its table, and the context that open() made. */
struct device {
    const struct ops *ops;
    void *ctx;
};

extern const struct ops ref_ops;
/* best tier of this CPU, or the one GRPO_CPU names; E_DEVICE if it lacks that */
int cpu_ops_pick(const struct ops **out);

/* device: "ref", "cpu"; the one place that knows which backends exist */
int ops_find(const struct ops **out, const char *device);

#endif
