/* The few declarations of cuBLASLt that we use, under names of our own: its header comes with a 400 MB package that
   nobody should need to build this. tests/cuda/test_cublaslt.py compares them with the real header where that is
   installed. */
#ifndef GRPO_CUDA_CUBLASLT_H
#define GRPO_CUDA_CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

enum {
    BLASLT_R_32F = 0,
    BLASLT_R_16BF = 14,                       /* cudaDataType_t */
    BLASLT_COMPUTE_32F = 68,                                    /* cublasComputeType_t */
    BLASLT_OP_N = 0,
    BLASLT_OP_T = 1,                           /* cublasOperation_t */
    BLASLT_DESC_TRANSA = 3,
    BLASLT_DESC_TRANSB = 4,
    BLASLT_DESC_EPILOGUE = 7,
    BLASLT_DESC_BIAS_POINTER = 8,     /* cublasLtMatmulDescAttributes_t */
    BLASLT_EPILOGUE_BIAS = 4,                                   /* cublasLtEpilogue_t; the vector is of d's type */
    BLASLT_LAYOUT_COLS = 3,                                     /* cublasLtMatrixLayoutAttribute_t */
    BLASLT_PREF_MAX_WORKSPACE_BYTES = 1,
    BLASLT_PREF_REDUCTION_SCHEME_MASK = 3,
    BLASLT_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    BLASLT_PREF_MIN_ALIGNMENT_D_BYTES = 8,        /* B, C between them */
    BLASLT_REDUCTION_SCHEME_NONE = 0,
    BLASLT_SUCCESS = 0,
    BLASLT_NOT_SUPPORTED = 15,              /* cublasStatus_t */
};

struct blaslt_algo {
    uint64_t data[8];
};
struct blaslt_choice {
    struct blaslt_algo algo;
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};

/* F(name, parameters): int cublasLt<name>(parameters). Handles are pointers, enumerations ints, streams pointers. */
#define BLASLT_FUNCTIONS(F)                                                                                    \
    F(Create, (void **handle))                                                                                 \
    F(MatmulDescCreate, (void **desc, int compute_type, int scale_type))                                       \
    F(MatmulDescSetAttribute, (void *desc, int attribute, const void *value, size_t bytes))                    \
    F(MatrixLayoutCreate, (void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld))                 \
    F(MatrixLayoutSetAttribute, (void *layout, int attribute, const void *value, size_t bytes))                \
    F(MatmulPreferenceCreate, (void **preference))                                                             \
    F(MatmulPreferenceSetAttribute, (void *preference, int attribute, const void *value, size_t bytes))        \
    F(MatmulPreferenceDestroy, (void *preference))                                                             \
    F(MatmulAlgoGetHeuristic, (void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, \
                               int requested, struct blaslt_choice *choices, int *returned))                   \
    F(Matmul, (void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b,      \
               void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,       \
               const struct blaslt_algo *algo, void *workspace, size_t workspace_bytes, void *stream))

struct blaslt {
#define MEMBER(name, parameters) int(*name) parameters;
    BLASLT_FUNCTIONS(MEMBER)
#undef MEMBER
    size_t (*GetVersion)(void);                                 /* 130100 = 13.1.0 */
};

#endif
