/* Linear layers and their gradients: 2 N C O FLOPs each. Weights are read once from memory while N is at most a
   tile's rows; from N of about 200 on the tensor cores are the limit. */
#include "cuda/blas.cuh"
#include "cuda/gemm.cuh"

int forward_product(const struct cuda_ctx *ctx, const struct product &g, const struct sums_to_real &y) {
    return gemm<A_BT, wide, large, middle, slim, narrow, thin, wide90, large90, middle90, slim90, thin90>(ctx, g, y);
}

int gradient_product(const struct cuda_ctx *ctx, const struct product &g, const struct sums_to_real &dx) {
    return gemm<A_B, wide, large, middle, wide90, large90, middle90>(ctx, g, dx);
}

int add_to_weight_gradient(const struct cuda_ctx *ctx, float *dW, const struct product &g) {
    return gemm<AT_B, wide, large, middle, wide90, large90, middle90>(ctx, g, floats_to(dW, true, g.N));
}

static int product(const struct cuda_ctx *ctx, real *y, const real *x, const weight *W, const float *b, int N, int C,
                   int O, bool add) {
    bool done;
    TRY(blas_linear(ctx, &done, y, x, W, b, N, C, O, add));
    if (done) return OK;
    struct product g = {activations((const bf16 *)x, N, C), weight_rows(W, 0, O, C), N, O, C};
    return forward_product(ctx, g, rounded_to((bf16 *)y, b, add, O));
}

int cuda_linear(void *ctx, real *y, const real *x, const weight *W, const float *b, int N, int C, int O) {
    return product((const struct cuda_ctx *)ctx, y, x, W, b, N, C, O, false);
}

int cuda_linear_add(void *ctx, real *y, const real *x, const weight *W, const float *b, int N, int C, int O) {
    return product((const struct cuda_ctx *)ctx, y, x, W, b, N, C, O, true);
}

int cuda_logits(void *ctx, float *z, const real *h, const weight *W, int S, int C, int V) {
    struct product g = {activations((const bf16 *)h, S, C), weight_rows(W, 0, V, C), S, V, C};
    return gemm<A_BT, large, middle, narrow, wide90, middle90>((const struct cuda_ctx *)ctx, g, floats_to(z, false, V));
}

int cuda_linear_dx(void *ctx, real *dx, const real *dy, const weight *W, int N, int C, int O) {
    bool done;
    TRY(blas_linear_dx((const struct cuda_ctx *)ctx, &done, dx, dy, W, N, C, O));
    if (done) return OK;
    struct product g = {activations((const bf16 *)dy, N, O), weight_rows(W, 0, O, C), N, C, O};
    return gradient_product((const struct cuda_ctx *)ctx, g, rounded_to((bf16 *)dx, NULL, false, C));
}

/* db (O) += sum dy: a warp adds the rows of one run of ROW_ALIGN; the runs of DB_WARPS warps are then added in order.
   Bytes: 2 N O, at memory speed only where O is wide; it is a thousandth of the work beside it. */
enum { DB_WARPS = 32, DB_COLS = 2 * WARP };
static __global__ void __launch_bounds__(DB_WARPS *WARP) bias_gradient(float *db, const bf16 *dy, int N, int O) {
    __shared__ float run[DB_WARPS][DB_COLS];
    int first_col = (int)blockIdx.x * DB_COLS, own = first_col + (int)threadIdx.x;
    int left = first_col + lane_id(), right = left + WARP;
    bool adds = threadIdx.x < DB_COLS && own < O;
    float sum = adds ? db[own] : 0;
    for (int row0 = 0; row0 < N; row0 += DB_WARPS * ROW_ALIGN) {
        int first = row0 + warp_id() * ROW_ALIGN;
        float a = 0, b = 0;
#pragma unroll 16
        for (int i = 0; i < ROW_ALIGN; i++) {
            const bf16 *row = dy + (size_t)(first + i) * O;
            if (first + i < N && left < O) a += to_float(row[left]);
            if (first + i < N && right < O) b += to_float(row[right]);
        }
        run[warp_id()][lane_id()] = a;
        run[warp_id()][lane_id() + WARP] = b;
        __syncthreads();
        int runs = min_int(DB_WARPS, ceil_div(N - row0, ROW_ALIGN));
        for (int i = 0; adds && i < runs; i++) sum += run[i][threadIdx.x];
        __syncthreads();
    }
    if (adds) db[own] = sum;
}

int cuda_linear_dw(void *ctx, float *dW, float *db, const real *dy, const real *x, int N, int C, int O) {
    struct product g = {activations((const bf16 *)dy, N, O), activations((const bf16 *)x, N, C), O, C, N};
    if (!N) return OK;
    if (db) LAUNCH(ctx, bias_gradient, blocks_of((size_t)O, DB_COLS), DB_WARPS * WARP, 0, db, (const bf16 *)dy, N, O);
    bool done;
    TRY(blas_linear_dw((const struct cuda_ctx *)ctx, &done, dW, dy, x, N, C, O));
    return done ? OK : add_to_weight_gradient((const struct cuda_ctx *)ctx, dW, g);
}
