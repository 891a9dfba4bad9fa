/* The head. Logits are never whole in memory (C3). A pass over W leaves, of each row and CHUNK ids, only the largest
   logit and two sums; these make lse and entropy. With coef, logits are then made again for HEAD_IDS ids of HEAD_ROWS
   rows at a time, as bf16 dz, and dh += dz W, dW += dz^T h follow: dh in fp32 sums that run over all ids, dW in row
   order (C2).
   FLOPs: 2 R C V forward, 8 R C V with the backward. At V = 151936 and C = 896, HEAD_ROWS rows need 117 MB of parts,
   67 MB of dz and 15 MB of dh; dW is read and written once for each HEAD_ROWS rows. */
#include "cuda/gemm.cuh"
#include "cuda/head.cuh"

/* Multiples of ROW_ALIGN and of 128. A build for tests makes them small, so that small sizes go through every loop. */
#ifndef HEAD_ROWS
enum { HEAD_ROWS = 4096, HEAD_IDS = 8192 };
#endif

/* A warp is as wide as a chunk. */
typedef tile<16, 128, 16, CHUNK, 64, 4, 2> head_narrow;
typedef tile<64, 128, 32, CHUNK, 32, 4, 2, true> head_middle;
typedef tile<128, 128, 64, CHUNK, 32, 4, 2> head_large;

/* -- statistics -------------------------------------------------------------------------------------------------- */

/* The epilogue: parts of every row and chunk. z and target may be NULL. */
struct logits_to_mass {
    float *max, *sum, *dot;
    size_t pitch;
    float *z;
    size_t z_pitch;
    float *hit;
    const int32_t *target;
    float scale;
};

template <int I, int J> DEVICE void start(const struct logits_to_mass &, float (&sums)[I][J][4], struct place) {
    start_from_zero(sums);
}
template <int I, int J> DEVICE void finish(const struct logits_to_mass &e, float (&sums)[I][J][4], struct place at) {
    static_assert(J * 8 == CHUNK, "");
#pragma unroll
    for (int i = 0; i < I * 2; i++) {
        int row = at.row + 8 * i + lane_id() / 4, target = e.target && row < at.M ? e.target[row] - at.col : -1;
        float z[QUAD_IDS];
#pragma unroll
        for (int k = 0; k < QUAD_IDS; k++) {
            z[k] = sums[i / 2][k / 2][i % 2 * 2 + k % 2] * e.scale;
            if (quad_id(k) == target) e.hit[row] = z[k];
            if (at.col + quad_id(k) >= at.N) z[k] = -INFINITY;
        }
        struct mass m = chunk_mass(z);
        if (row >= at.M || at.col >= at.N) continue;
        if (lane_id() % 4 == 0) {
            size_t part = (size_t)(at.col / CHUNK) * e.pitch + row;
            e.max[part] = m.max;
            e.sum[part] = m.sum;
            e.dot[part] = m.dot;
        }
        if (e.z)
#pragma unroll
            for (int k = 0; k < QUAD_IDS; k += 2) store<2>(e.z + (size_t)row * e.z_pitch + at.col + quad_id(k), z + k);
    }
}

/* Parts to rows. Bytes: 12 for a row and chunk, in runs of MERGE_ROWS floats, max twice. */
enum { MERGE_ROWS = 8 };
static __global__ void __launch_bounds__(MERGE_ROWS *MERGE_LANES) merge_rows(struct row_stats s, int R, int chunks) {
    __shared__ float work[2 * MERGE_ROWS * MERGE_LANES];
    int row = (int)blockIdx.x * MERGE_ROWS + (int)threadIdx.x % MERGE_ROWS;
    int from = min_int(row, R - 1);
    struct mass m = row_mass<MERGE_ROWS>(s.max + from, s.sum + from, s.dot + from, s.pitch, chunks, work);
    if (threadIdx.x >= MERGE_ROWS || row >= R) return;
    s.lse[row] = mass_lse(m);
    s.entropy[row] = mass_entropy(m);
}

struct row_stats cut_row_stats(struct cut *c, int rows, int V) {
    struct row_stats s;
    s.pitch = (size_t)round_up(rows, MERGE_ROWS);
    size_t parts = s.pitch * (size_t)ceil_div(V, CHUNK);
    s.max = (float *)cut_piece(c, parts, sizeof(float));
    s.sum = (float *)cut_piece(c, parts, sizeof(float));
    s.dot = (float *)cut_piece(c, parts, sizeof(float));
    s.lse = (float *)cut_piece(c, s.pitch, sizeof(float));
    s.entropy = (float *)cut_piece(c, s.pitch, sizeof(float));
    s.hit = (float *)cut_piece(c, s.pitch, sizeof(float));
    return s;
}

/* 2 R C V FLOPs; bytes: W once for up to 128 rows, beyond that the tensor cores are the limit. */
int softmax_rows(const struct cuda_ctx *ctx, const struct row_stats *out, float *z, size_t z_pitch, const bf16 *h,
                 const weight *W, const int32_t *target, float scale, int R, int C, int V) {
    struct product g = {activations(h, R, C), weight_rows(W, 0, V, C), R, V, C};
    struct logits_to_mass parts = {out->max, out->sum, out->dot, out->pitch, z, z_pitch, out->hit, target, scale};
    TRY((gemm<A_BT, head_large, head_middle, head_narrow, wide90, middle90>(ctx, g, parts)));
    LAUNCH(ctx, merge_rows, blocks_of((size_t)R, MERGE_ROWS), MERGE_ROWS * MERGE_LANES, 0, *out, R, ceil_div(V, CHUNK));
    return OK;
}

/* -- backward ---------------------------------------------------------------------------------------------------- */

/* The epilogue: dz (M, pitch) of ids first..first+N, and 0 up to the end of the tile. rows (M): lse, entropy, and the
   coefficients of logp and entropy times scale. */
struct __align__(16) row_terms { float lse, entropy, coef, ecoef; };
struct logits_to_dz { bf16 *dz; size_t pitch; const struct row_terms *rows; const int32_t *target; int first; float scale; };

template <int I, int J> DEVICE void start(const struct logits_to_dz &, float (&sums)[I][J][4], struct place) {
    start_from_zero(sums);
}
template <int n> DEVICE void put(const struct logits_to_dz &e, float (&v)[n], int row, int col, int) {
    store<n>(e.dz + (size_t)row * e.pitch + col, v);
}
template <int I, int J> DEVICE void finish(const struct logits_to_dz &e, float (&sums)[I][J][4], struct place at) {
#pragma unroll
    for (int i = 0; i < I * 2; i++) {
        int from = min_int(at.row + 8 * i + lane_id() / 4, at.M - 1), target = e.target[from] - e.first - at.col;
        struct row_terms row = e.rows[from];
#pragma unroll
        for (int k = 0; k < J * 2; k++) {
            float *z = &sums[i / 2][k / 2][i % 2 * 2 + k % 2];
            float logp = below(*z * e.scale, row.lse), p = exp_approx(logp);
            float dz = (quad_id(k) == target ? row.coef : 0) - p * fmaf(row.ecoef, logp + row.entropy, row.coef);
            *z = at.col + quad_id(k) < at.N ? dz : 0;
        }
    }
    at.N = (int)e.pitch;
    finish_runs(e, sums, at);
}

/* Scratch of a call on R rows, in blocks of `rows`. */
struct head_plan { int rows, ids; struct row_stats stats; struct row_terms *terms; bf16 *dz; float *dh; };

static struct head_plan plan_head(struct cut *c, int R, int C, int V) {
    struct head_plan p;
    p.rows = min_int(HEAD_ROWS, round_up(R, ROW_ALIGN));
    p.ids = min_int(HEAD_IDS, round_up(V, 128));
    p.stats = cut_row_stats(c, p.rows, V);
    p.terms = (struct row_terms *)cut_piece(c, p.rows, sizeof(struct row_terms));
    p.dz = (bf16 *)cut_piece(c, (size_t)p.rows * p.ids, sizeof(bf16));
    p.dh = (float *)cut_piece(c, (size_t)p.rows * C, sizeof(float));
    return p;
}

size_t head_scratch(const struct op_limits *need) {
    struct cut c = {NULL, 0};
    plan_head(&c, need->head_rows, need->channels, need->vocab);
    return c.at;
}

/* Of at most p->rows rows: dh =, dW +=. 6 R C V FLOPs. */
static int head_backward(const struct cuda_ctx *ctx, const struct head_plan *p, bf16 *dh, float *dW, const bf16 *h,
                         const weight *W, struct logits_to_dz e, int R, int C, int V) {
    for (int first = 0; first < V; first += p->ids) {
        int ids = min_int(p->ids, V - first);
        struct matrix x = activations(h, R, C), w = weight_rows(W, first, ids, C);
        struct matrix dz = {p->dz, (size_t)p->ids, R, ids, true};
        e.first = first;
        TRY((gemm<A_BT, head_large, head_middle, wide90, middle90>(ctx, (struct product){x, w, R, ids, C}, e)));
        struct sums_to_float sums = floats_to(p->dh, first > 0, C);
        TRY((gemm<A_B, large, middle, wide90, middle90>(ctx, (struct product){dz, w, R, C, ids}, sums)));
        TRY(add_to_weight_gradient(ctx, dW + (size_t)first * C, (struct product){dz, x, ids, C, R}));
    }
    return cuda_cast((void *)ctx, dh, p->dh, (size_t)R * C);
}

/* logp (R), and with coef the terms of logits_to_dz */
static __global__ void finish_rows(float *logp, struct row_terms *terms, struct row_stats s, const float *coef,
                                   const float *ecoef, float scale, int R) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= R) return;
    logp[i] = s.hit[i] - s.lse[i];
    if (coef) terms[i] = {s.lse[i], s.entropy[i], coef[i] * scale, ecoef ? ecoef[i] * scale : 0};
}

int cuda_head(void *ctx_, float *dW, const struct head_rows *all, const weight *W, float inv_temperature, int C, int V) {
    const struct cuda_ctx *ctx = (const struct cuda_ctx *)ctx_;
    int R = all->R;
    struct cut size = {NULL, 0}, c = {NULL, 0};
    plan_head(&size, R, C, V);
    TRY(scratch((void **)&c.base, ctx, size.at));
    struct head_plan p = plan_head(&c, R, C, V);
    for (int row = 0; row < R; row += p.rows) {
        int rows = min_int(p.rows, R - row);
        const bf16 *x = (const bf16 *)all->h + (size_t)row * C;
        const int32_t *target = all->target + row;
        p.stats.entropy = all->entropy + row;
        TRY(softmax_rows(ctx, &p.stats, NULL, 0, x, W, target, inv_temperature, rows, C, V));
        LAUNCH(ctx, finish_rows, blocks_of((size_t)rows, 256), 256, 0, all->logp + row, p.terms, p.stats,
               all->coef ? all->coef + row : NULL, all->ecoef ? all->ecoef + row : NULL, inv_temperature, rows);
        if (!all->coef) continue;
        struct logits_to_dz e = {p.dz, (size_t)p.ids, p.terms, target, 0, inv_temperature};
        TRY(head_backward(ctx, &p, (bf16 *)all->dh + (size_t)row * C, dW, x, W, e, rows, C, V));
    }
    return OK;
}
