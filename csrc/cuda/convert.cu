/* fp32 to the storage of weights, vectors and activations, and back. Each moves 6 bytes an element (vector_set 8) and
   computes nothing: at the memory's speed. */
#include "cuda/cuda.cuh"

enum { THREADS = 256, BLOCKS = 4096 };                 /* a grid that fills any GPU; threads stride over the rest */

size_t cuda_weight_bytes(int O, int C) { return (size_t)O * (size_t)weight_pitch(C) * sizeof(bf16); }

static unsigned blocks_up_to(size_t threads) {
    unsigned blocks = blocks_of(threads, THREADS);
    return blocks < BLOCKS ? blocks : BLOCKS;
}

/* A thread a pair of columns; w: the first row to set. The pair beyond C is zero. */
static __global__ void set_rows(bf16 *w, const float *src, int rows, int C, int pitch) {
    size_t pairs = (size_t)pitch / 2, n = (size_t)rows * pairs, stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        size_t row = i / pairs;
        int c = 2 * (int)(i % pairs);
        const float *from = src + row * C + c;
        *(uint32_t *)(w + row * pitch + c) = pack2(c < C ? from[0] : 0, c + 1 < C ? from[1] : 0);
    }
}

static __global__ void get_rows(float *dst, const bf16 *w, int rows, int C, int pitch) {
    size_t n = (size_t)rows * C, stride = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
        dst[i] = to_float(w[i / C * pitch + i % C]);
}

int cuda_weight_set(void *ctx, weight *w, const float *src, int row, int rows, int O, int C) {
    int pitch = weight_pitch(C);
    (void)O;
    LAUNCH(ctx, set_rows, blocks_up_to((size_t)rows * (pitch / 2)), THREADS, 0, (bf16 *)w + (size_t)row * pitch, src,
           rows, C, pitch);
    return OK;
}

int cuda_weight_get(void *ctx, float *dst, const weight *w, int row, int rows, int O, int C) {
    int pitch = weight_pitch(C);
    (void)O;
    LAUNCH(ctx, get_rows, blocks_up_to((size_t)rows * C), THREADS, 0, dst, (const bf16 *)w + (size_t)row * pitch, rows,
           C, pitch);
    return OK;
}

static __global__ void round_vector(float *dst, const float *src, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) dst[i] = round_bf16(src[i]);
}

int cuda_vector_set(void *ctx, float *dst, const float *src, int n) {
    LAUNCH(ctx, round_vector, blocks_up_to((size_t)n), THREADS, 0, dst, src, n);
    return OK;
}

template <typename To, typename From> static __global__ void convert(To *dst, const From *src, size_t n) {
    size_t pieces = n / 8, stride = (size_t)gridDim.x * blockDim.x,
           first = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    float v[8];
    for (size_t i = first; i < pieces; i += stride) {
        load<8>(v, src + 8 * i);
        store<8>(dst + 8 * i, v);
    }
    for (size_t i = 8 * pieces + first; i < n; i += stride) {
        load<1>(v, src + i);
        store<1>(dst + i, v);
    }
}

int cuda_cast(void *ctx, real *dst, const float *src, size_t n) {
    LAUNCH(ctx, (convert<bf16, float>), blocks_up_to(n / 8 + n % 8), THREADS, 0, (bf16 *)dst, src, n);
    return OK;
}

int cuda_uncast(void *ctx, float *dst, const real *src, size_t n) {
    LAUNCH(ctx, (convert<float, bf16>), blocks_up_to(n / 8 + n % 8), THREADS, 0, dst, (const bf16 *)src, n);
    return OK;
}
