/* What the files of the reference backend share: the context, its operations, one dot product.
   Storage is float, every sum is double, every loop is the obvious one: this is the text to read first, and the
   judge of the fast backends. It runs as device "ref". */
#ifndef GRPO_REF_H
#define GRPO_REF_H

#include "base/base.h"
#include "ops/ops.h"

struct ranked {
    double z;
    int id;
};

struct ref_ctx {
    double *work;                    /* scratch of reserve() */
    const float **key, **value;      /* (n_keys) where the visible keys and values of a row lie */
    struct ranked *rank;             /* (n_ranks) ids by falling logit */
    size_t n_work;
    int n_keys, n_ranks;
};

/* ref_linear and so on, one function an entry of ops.def */
#define MEMORY(result, name, parameters) __typeof__(*((struct ops *)0)->name) ref_##name;
#define PLAN MEMORY
#define OP(name, ...) MEMORY(int, name, )
#define OP_BY_HAND OP
#include "ops/ops.def"

/* `n` doubles of scratch, or E_MEMORY when reserve() was told of less */
int ref_scratch(double **out, struct ref_ctx *ctx, size_t n);

/* sum a[i] b[i]: eight partial sums, added in one fixed order whatever n is */
static inline double dot(const float *a, const float *b, size_t n) {
    double part[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) part[j] += (double)a[i + j] * b[i + j];
    for (int j = 0; i < n; i++, j++) part[j] += (double)a[i] * b[i];
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

#endif
