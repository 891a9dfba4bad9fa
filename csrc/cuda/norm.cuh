/* Gradients of weights that are sums over rows: each run of ROW_ALIGN rows is summed on its own, and the sums of the
   runs are added one after the other, which a batch split between runs does not change (same seed, same run). */
#ifndef GRPO_CUDA_NORM_H
#define GRPO_CUDA_NORM_H

#include "cuda/cuda.cuh"

/* dst (C) += partial (blocks, stride)[:, :C], block by block: 4 bytes an element of partial */
int add_partials(void *ctx, float *dst, const float *partial, int blocks, int C, int stride);

#endif
