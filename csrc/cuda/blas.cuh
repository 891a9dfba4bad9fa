/* Matrix products by cuBLASLt, where it is installed and wanted. GRPO_CUDA_GEMM says where: auto (default):
   gradients of activations; cublaslt: wherever it can, and its absence is an error; own: nowhere. An algorithm is
   chosen once for each shape of weight and serves any number of rows, without split-K: then a row's bits do not
   depend on the batch if the algorithm treats every tile alike, which nobody promises and
   tests/gpu/test_gpu_cublaslt.py looks at. Our own kernels do. */
#ifndef GRPO_CUDA_BLAS_H
#define GRPO_CUDA_BLAS_H

#include "cuda/cuda.cuh"

/* Algorithms for the weights that `need` names, so that none is looked for in a step. */
int blas_reserve(const struct cuda_ctx *ctx, const struct op_limits *need);

/* As the operations of the same names; add: linear_add. *done: the product is on its way. Left false where
   GRPO_CUDA_GEMM, the library or an alignment say no: the caller's own kernel computes it. */
int blas_linear(const struct cuda_ctx *ctx, bool *done, real *y, const real *x, const weight *W, const float *b, int N,
                int C, int O, bool add);
int blas_linear_dx(const struct cuda_ctx *ctx, bool *done, real *dx, const real *dy, const weight *W, int N, int C,
                   int O);
int blas_linear_dw(const struct cuda_ctx *ctx, bool *done, float *dW, const real *dy, const real *x, int N, int C,
                   int O);

/* folders to search for the library, separated by ':' ; "libcublasLt.so.13 (...)" or why there is none */
void blas_search(const char *folders);
const char *blas_name(void);

#endif
