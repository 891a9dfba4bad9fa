/* Floor 1: THE TABLE. Every tensor operation of the system, once: formula, shapes, and whether a result is `=` or `+=`.
   Backends (ref/, cpu/, cuda/) fill one `const struct ops` each; model/ and rl/ call through it and never ask which it is.

   Conventions
   - Row-major. N packed tokens, R head rows, S slots, C channels in, O channels out, Hq/Hkv query/KV heads, D head dim,
     F feed-forward width, V vocabulary.
   - `real`: stored activations and weights: bf16 on cpu and cuda, float on ref. Sums, softmax, log-softmax in fp32
     (double on ref). A packed weight is opaque (`struct weight`); vectors (norms, biases) are float, rounded to `real`.
   - Destination first, then sources, then sizes. Gradients begin with d. Gradients of activations are `=` unless
     the name says add; gradients of weights are fp32 and `+=`.
   - All pointers are memory of the backend (from alloc) unless marked HOST. An op allocates nothing, keeps nothing;
     scratch comes from reserve(). Ops return 0 or a status of base.h.
   - C1: a row of a result depends on that row's inputs alone, never on N, on its neighbours or on threads: every reduction
     over C, D or V has one fixed order. Attention walks keys in tiles of KV_TILE aligned to absolute position 0,
     the same in attention and attention_decode.
   - C2: gradients of weights add tokens strictly in row order, so splitting a batch at rows that are multiples of
     ROW_ALIGN changes no bit. */
#ifndef GRPO_OPS_H
#define GRPO_OPS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef void real;              /* element size: ops->real_size */
typedef void weight;            /* packed (O, C) matrix, weight_bytes() long */

enum { KV_TILE = 32, ROW_ALIGN = 32 };

/* Rows [start, start+len) of the packed batch are one run of consecutive positions prefix_len, prefix_len+1, ...
   Row start+i sees rows [prefix, prefix+prefix_len), which hold positions 0..prefix_len-1, and rows start..start+i.
   A prompt is {start, P, 0, 0}; its completions follow as {start', n, start, P}: they share it, none sees another. */
struct segment { int32_t start, len, prefix, prefix_len; };

/* What the largest call will need; reserve() turns it into scratch. weights (HOST): the shapes that linear and its gradients
   will meet; a backend that chooses a method for each chooses then, and serves any other when it comes. */
struct weight_shape { int O, C; };
struct op_limits {
    int rows, head_rows, slots, channels, heads, kv_heads, head_dim, vocab, segments, max_position, shared_pages, n_weights;
    const struct weight_shape *weights;
};

/* One sampling distribution: logits -> repetition penalty -> forbidden ids removed -> / temperature -> top-k -> top-p ->
   min-p, as transformers orders them. HOST struct; its pointers are backend memory. temperature 0 = greedy (lowest id
   among equals), its log-probs are those of temperature 1. */
struct sampler {
    float temperature, top_p, min_p, repetition_penalty;
    int top_k;                       /* 0 = off */
    int n_stop;
    const int32_t *stop_ids;         /* (n_stop) forbidden where the key says no_stop (min_new_tokens) */
    const uint8_t *forbidden;        /* (V) 1 = never sampled, or NULL */
};
struct sample_key { uint64_t seed; uint32_t step, prompt, sample, position, no_stop; };
struct sampled {
    int32_t id;                      /* -1: the logits were not finite */
    float logp;                      /* log-probability on the truncated support it was drawn from */
    float policy_logp;               /* log softmax(z / temperature)[id] over the whole vocabulary: what head() computes */
    float entropy;                   /* of that whole softmax: what head() computes */
};

/* The heads of a layer's attention: of queries, of keys and of values, and their width; a query at position p sees the keys
   k <= p and, with a window, p - k < window; its scores are multiplied by scale. */
struct attention_shape { int Hq, Hkv, D; int window; float scale; };

/* the first key that a query at a position sees */
static inline int first_key(int position, int window) { return window && position >= window ? position - window + 1 : 0; }

/* What scores are divided by, in double: sqrt(n) itself where scale is its float reciprocal, which lost half of the digits. */
static inline double score_divisor(float scale) {
    double n = round(1 / ((double)scale * scale));
    return scale == 1 / sqrtf((float)n) ? sqrt(n) : 1 / (double)scale;
}

/* Where the keys of S rows of decode lie: row s sees length[s] keys (its own included), key p lies in page
   pages[s * max_pages + p / KV_TILE]. shared_pages: so many leading pages may be the same for rows beside each other; a
   hint, no bit depends on it. */
struct key_pages { const int32_t *pages, *length; int max_pages, shared_pages; };      /* (S, max_pages), (S) */

/* RMSNorm of each head of q and of k before it is rotated, with weights (D): n (offset + w). */
struct head_norm { const float *wq, *wk; float offset, eps; };

/* The gate of an MLP: g sigmoid(g), or g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))) / 2. */
enum glu_gate { GLU_SILU, GLU_GELU_TANH };

/* Rows of the head: hidden states and what each should predict; the results; and for the backward of
   sum_i coef[i] logp[i] + ecoef[i] entropy[i] its coefficients (coef NULL: no backward; ecoef NULL: no entropy) and dh. */
struct head_rows {
    int R;
    const real *h;                   /* (R, C) */
    const int32_t *target;           /* (R) */
    float *logp, *entropy;           /* (R) */
    const float *coef, *ecoef;       /* (R) */
    real *dh;                        /* (R, C) */
};

/* Which gate a GELU has: Phi, its approximation by tanh, or by a sigmoid. */
enum gelu_kind { GELU_ERF, GELU_TANH, GELU_QUICK };

/* Storage of AdamW's moments m and v. float8 is of matrices (O, C) only: codes of base/float8.h (O, C), and then the exponents of
   their blocks (O, float8_blocks(C)). */
enum moment_dtype { MOMENT_FLOAT32, MOMENT_BFLOAT16, MOMENT_FLOAT8, MOMENT_DTYPES };
static inline size_t moment_element(enum moment_dtype dtype) { return dtype == MOMENT_FLOAT32 ? 4 : dtype == MOMENT_BFLOAT16 ? 2 : 1; }

/* Storage of master weights: of float32's 32 bits, or the upper 24 of them, what is beyond the working weight's 16 (base.h). */
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
    uint64_t seed, first;            /* of the random bits of rounding; first: index of w's first element in the model, 4 divides it */
    uint32_t step;
};

struct ops {
    const char *name;                /* "ref" | "cpu" | "cuda" */
    const char *tier;                /* cpu: "amx" | "avx512bf16" | "avx512" | "avx2" | "portable"; "" elsewhere */
    int real_size;
    int lookahead;                   /* decode steps worth issuing before the host looks at their tokens */

    /* -- context and memory ------------------------------------------------------------------------------------ */
    int    (*open)(void **ctx);
    void   (*close)(void *ctx);
    int    (*reserve)(void *ctx, const struct op_limits *need);          /* grows scratch; called while planning only  */
    void  *(*alloc)(void *ctx, size_t bytes);                            /* zeroed, 64-byte aligned; NULL = no memory  */
    void   (*release)(void *ctx, void *p);
    int    (*upload)(void *ctx, void *dst, const void *host, size_t bytes);
    int    (*download)(void *ctx, void *host, const void *src, size_t bytes);
    int    (*zero)(void *ctx, void *dst, size_t bytes);
    int    (*copy)(void *ctx, void *dst, const void *src, size_t bytes);

    /* -- recording: calls that come again with the same arguments, issued by one. replay: *done = 1: the calls recorded under
          `key` (HOST; the bytes of all that makes up their arguments) were issued. Else the caller makes them, and then calls
          record_end with their status, which it returns unless ending fails; in between nothing may be uploaded, downloaded,
          allocated, released or reserved. A backend that gains nothing is never done ----------------------------- */
    int    (*replay)(void *ctx, const void *key, size_t bytes, int *done);
    int    (*record_end)(void *ctx, int status);

    /* -- weights ------------------------------------------------------------------------------------------------ */
    size_t (*weight_bytes)(int O, int C);
    /* rows [row, row+rows) of w (O, C) = real(src (rows, C)), and back */
    int (*weight_set)(void *ctx, weight *w, const float *src, int row, int rows, int O, int C);
    int (*weight_get)(void *ctx, float *dst, const weight *w, int row, int rows, int O, int C);
    int (*vector_set)(void *ctx, float *dst, const float *src, int n);   /* dst = real(src), stored as float */
    int (*cast)(void *ctx, real *dst, const float *src, size_t n);       /* dst = real(src)                  */
    int (*uncast)(void *ctx, float *dst, const real *src, size_t n);     /* dst = float(src)                 */

    /* -- embedding: y (N, C) = E (V, C)[ids] scale, rounded once;  dE (V, C) += scatter of scale dy in row order - */
    int (*embed)(void *ctx, real *y, const weight *E, const int32_t *ids, float scale, int N, int C, int V);
    int (*embed_dw)(void *ctx, float *dE, const real *dy, const int32_t *ids, float scale, int N, int C, int V);

    /* -- linear: y (N, O) = x (N, C) W^T (O, C) + b (O);  linear_add: y += x W^T + b, rounded once (the residual stream) */
    int (*linear)(void *ctx, real *y, const real *x, const weight *W, const float *b, int N, int C, int O);
    int (*linear_add)(void *ctx, real *y, const real *x, const weight *W, const float *b, int N, int C, int O);
    int (*linear_dx)(void *ctx, real *dx, const real *dy, const weight *W, int N, int C, int O);      /* dx = dy W     */
    int (*linear_dw)(void *ctx, float *dW, float *db, const real *dy, const real *x, int N, int C, int O); /* dW += dy^T x, db += sum dy (db may be NULL) */

    /* -- RMSNorm: rstd (N) = 1/sqrt(mean x^2 + eps), n = x rstd, y = n (offset + w);  rmsnorm_add: y += n (offset + w);
          both rounded once.  bwd_add, g = (offset + w) dy: dx += rstd (g - n mean(g n));  dw += sum_rows dy n -------- */
    int (*rmsnorm)(void *ctx, real *y, float *rstd, const real *x, const float *w, float offset, float eps, int N, int C);
    int (*rmsnorm_add)(void *ctx, real *y, float *rstd, const real *x, const float *w, float offset, float eps, int N, int C);
    int (*rmsnorm_bwd_add)(void *ctx, real *dx, float *dw, const real *dy, const real *x, const float *w, float offset, const float *rstd,
                           int N, int C);

    /* -- LayerNorm: mean (N), rstd (N) = 1/sqrt(mean (x - mean)^2 + eps), n = (x - mean) rstd, y = n w + b (rounded once).
          add: dx += rstd (w dy - mean(w dy) - n mean(w dy n));  dw += sum_rows dy n;  db += sum_rows dy ----------- */
    int (*layernorm)(void *ctx, real *y, float *mean, float *rstd, const real *x, const float *w, const float *b, float eps, int N, int C);
    int (*layernorm_bwd_add)(void *ctx, real *dx, float *dw, float *db, const real *dy, const real *x, const float *w, const float *mean,
                             const float *rstd, int N, int C);

    /* -- rotary embedding on qkv (N, (Hq + 2 Hkv) D), heads of q, then k, then v ---------------------------------
          rope_table: scale times cos, sin (N, D/2) of p * inv_freq[j], fp32 product, accurate for large arguments; p = pos[i], or, with
          axis (D/2) given, pos[axis[j]][i] of pos (axes, N): m-RoPE (time, row, column); a vision tower's row and column,
          each with the frequencies of D/4 pairs.
          rope: q, k heads of y = rotate(norm(x)) with pairs (j, j + D/2); v copied. norm: of each head (Qwen3, Gemma 3), or
          NULL. y may be x. rope_bwd: d (N, ...) in place from gradient of y to gradient of x;
          x = the input of rope (read only where there is a norm); dwq, dwk += ------------------------------------ */
    int (*rope_table)(void *ctx, float *cos, float *sin, const int32_t *pos, const float *inv_freq, const int32_t *axis, float scale,
                      int N, int D);
    int (*rope)(void *ctx, real *y, const real *x, const struct head_norm *norm, const float *cos, const float *sin, int N,
                const struct attention_shape *a);
    int (*rope_bwd)(void *ctx, real *d, float *dwq, float *dwk, const real *x, const struct head_norm *norm, const float *cos,
                    const float *sin, int N, const struct attention_shape *a);

    /* -- attention over packed rows: y (N, Hq D) = softmax(scale q k^T) v, causal, with a window where the shape has one, prefix
          shared (struct segment); lse (N, Hq) = log sum exp of the scaled scores. Query head h reads KV head h / (Hq/Hkv). Rows outside every
          segment: y = 0. attention_bwd: dqkv = (rows outside every segment: 0); dy, y, lse as of the forward;
          a prefix collects its completions' dk, dv in segment order ---------------------------------------------- */
    int (*attention)(void *ctx, real *y, float *lse, const real *qkv, const struct segment *segments, int n_segments,
                     int N, const struct attention_shape *a);
    int (*attention_bwd)(void *ctx, real *dqkv, const real *dy, const real *y, const float *lse, const real *qkv,
                         const struct segment *segments, int n_segments, int N, const struct attention_shape *a);

    /* -- KV pool of one layer: pages of KV_TILE positions, kv_page_bytes() each, layout the backend's own.
          kv_store: row i of qkv (N, ...) goes to slot place[i] = page * KV_TILE + offset; place < 0: not stored.
          kv_copy: page dst[i] = page src[i]. attention_decode: y (S, Hq D) =, lse (S, Hq) = of rows whose keys lie in pages
          of the pool (struct key_pages); same bits as attention -------------------------------------------------- */
    size_t (*kv_page_bytes)(int Hkv, int D);
    int (*kv_store)(void *ctx, void *pool, const real *qkv, const int32_t *place, int N, const struct attention_shape *a);
    int (*kv_copy)(void *ctx, void *pool, const int32_t *dst, const int32_t *src, int n, const struct attention_shape *a);
    int (*attention_decode)(void *ctx, real *y, float *lse, const real *qkv, const void *pool, const struct key_pages *keys, int S,
                            const struct attention_shape *a);

    /* -- GLU, the gated unit of an MLP: gu (N, 2F) = [g | u];  y (N, F) = gate(g) u;  dgu = [dy u gate'(g) | dy gate(g)];
          dgu may be gu ------------------------------------------------------------------------------------------- */
    int (*glu)(void *ctx, real *y, const real *gu, enum glu_gate gate, int N, int F);
    int (*glu_bwd)(void *ctx, real *dgu, const real *dy, const real *gu, enum glu_gate gate, int N, int F);

    /* -- GELU: y (N, F) = z g(z). g, by kind: erfc(-z / sqrt 2) / 2;  sigmoid(2 sqrt(2/pi) (z + 0.044715 z^3)), which is
          (1 + tanh of half that) / 2;  sigmoid(1.702 z). gelu_bwd: d (N, F) in place from gradient of y to gradient of z,
          d (g + z g') ------------------------------------------------------------------------------------------------ */
    int (*gelu)(void *ctx, real *y, const real *z, enum gelu_kind kind, int N, int F);
    int (*gelu_bwd)(void *ctx, real *d, const real *z, enum gelu_kind kind, int N, int F);

    /* -- rows: gather: dst (R, C) = src[index];  put: dst[index] = src (R, C), no index twice;
          scatter: dst[index] += src (R, C) in row order ------------------------------------------------------------------ */
    int (*gather_rows)(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C);
    int (*put_rows)(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C);
    int (*scatter_rows_add)(void *ctx, real *dst, const real *src, const int32_t *index, int R, int C);

    /* -- head: z = h W^T * inv_temperature in fp32, never kept whole; p = softmax(z).
          logp (R) = log p[target];  entropy (R) = -sum p log p.  When rows->coef is given also the backward:
          dz = inv_temperature (coef (1[target] - p) - ecoef p (log p + entropy));  dh (R, C) = dz W;  dW (V, C) += dz^T h.
          rows: HOST struct; its pointers are backend memory ----------------------------------------------------- */
    int (*head)(void *ctx, float *dW, const struct head_rows *rows, const weight *W, float inv_temperature, int C, int V);

    /* -- sample: one token a row from h (S, C): out (S); next (S) = max(id, 0), what embed reads. seen (S, V) 1 = already in
          prompt or completion, for repetition_penalty, or NULL; it gets the new token too. The uniform number is
          philox(seed, position, sample, prompt, step).x[0] of keys (S); inverse CDF over ids ascending ------------------ */
    int (*sample)(void *ctx, struct sampled *out, int32_t *next, uint8_t *seen, const real *h, const weight *W,
                  const struct sampler *sampler, const struct sample_key *keys, int S, int C, int V);
    /* z (S, V) fp32 = h W^T: for tests and for people who want logits */
    int (*logits)(void *ctx, float *z, const real *h, const weight *W, int S, int C, int V);

    /* -- optimiser: torch.optim.AdamW in fp32 with g * grad_scale;  correction1 = 1 - beta1^t, correction2 = 1 - beta2^t.
          w: packed matrix (O, C), or with C = 0 a vector (O). lower, m, v, g: row-major (O, C), or (O).
          The fp32 weight is what w stores and 16 bits more (base.h: join_bits), or 8: uint16 or uint8 in lower; joined, updated,
          split into both again. ref stores fp32, and lower is NULL there. Smaller moments are widened, updated in fp32 (the update
          of w reads those numbers) and written by round_stochastic() or float8_encode(), smaller masters by round_float24(), with
          rounding_bits() and master_bits() of base/rng.h, element i of w being number first + i ---------------------------- */
    int (*adamw)(void *ctx, void *w, void *lower, void *m, void *v, const float *g, int O, int C, const struct adamw *p);
    int (*sum_squares)(void *ctx, double *out /* HOST */, const float *g, size_t n);     /* fixed order; Inf or NaN pass through */
    int (*lerp)(void *ctx, float *dst, const float *src, float alpha, size_t n);         /* dst = (1 - alpha) dst + alpha src */
};

/* A backend at work: its table, and the context that open() made. */
struct device { const struct ops *ops; void *ctx; };

extern const struct ops ref_ops;
int cpu_ops_pick(const struct ops **out);    /* best tier of this CPU, or the one GRPO_CPU names; E_DEVICE if it lacks that */

/* device: "ref", "cpu"; the one place that knows which backends exist */
int ops_find(const struct ops **out, const char *device);

#endif
