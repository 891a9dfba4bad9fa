/* cuBLASLt: found and opened when first wanted, one plan a shape. */
#include "cuda/blas.cuh"
#include "cuda/cublaslt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAJOR = CUDART_VERSION / 1000, WORKSPACE = 32 << 20, ALIGNMENT = 16, PLANS = 128, USUAL_ROWS = 4096 };

/* Column-major, as BLAS has it: d (m, n) = op(a) op(b), op(a) (m, k), op(b) (k, n), all bf16 but d where float_out;
   accumulate: d +=; bias: plus a vector (m) in every column. The rows of activations, which alone vary from call to
   call, are n, or k where rows_are_k. Without padding: shapes are compared as bytes. */
struct blas_shape {
    int m, n, k, lda, ldb, ldd, trans_a, trans_b, accumulate, bias, float_out, rows_are_k;
};
struct blas_plan {
    struct blas_shape shape;                           /* rows: 0 */
    void *desc, *a, *b, *d;
    struct blaslt_algo algo;
    size_t workspace;
    bool none;                                         /* no algorithm: our own kernels */
};

static struct {
    pthread_mutex_t lock;
    bool tried;
    char folders[4096], name[256], why[2048];
    void *handle;
    struct blaslt f;
    struct blas_plan plans[PLANS];
    int n_plans;
} blas = {PTHREAD_MUTEX_INITIALIZER};

/* -- the library --------------------------------------------------------------------------------------------------- */

void blas_search(const char *folders) { snprintf(blas.folders, sizeof blas.folders, "%s", folders); }

static void *open_at(const char *path, int flags) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | flags);
    size_t used = strlen(blas.why);
    if (!library) snprintf(blas.why + used, sizeof blas.why - used, "%s%s", used ? ", " : "", path);
    else snprintf(blas.name, sizeof blas.name, "%.200s", path);
    return library;
}

static void *open_in(const char *folder, const char *below) {
    char path[2048];
    if (!folder || !*folder) return NULL;
    snprintf(path, sizeof path, "%.1900s%s/libcublasLt.so.%d", folder, below, (int)MAJOR);
    return open_at(path, 0);
}

static void *open_in_list(const char *folders) {
    char list[sizeof blas.folders], *rest = list;
    snprintf(list, sizeof list, "%s", folders);
    for (char *folder = strsep(&rest, ":"); folder; folder = strsep(&rest, ":")) {
        void *library = open_in(folder, "");
        if (library) return library;
    }
    return NULL;
}

/* Named; already in the process (PyTorch's or JAX's); of NVIDIA's packages for Python; conda's; the system's; the
   toolkit's. */
static void *open_library(void) {
    char name[64];
    const char *named = getenv("GRPO_CUBLAS"), *home = getenv("CUDA_HOME");
    void *library;
    snprintf(name, sizeof name, "libcublasLt.so.%d", (int)MAJOR);
    if (named && *named) return open_at(named, 0);
    if ((library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)))
        return snprintf(blas.name, sizeof blas.name, "%s", name), library;
    if ((library = open_in_list(blas.folders)) || (library = open_in(getenv("CONDA_PREFIX"), "/lib"))) return library;
    if ((library = open_at(name, 0)) || (library = open_in(home, "/lib64"))) return library;
    return open_in("/usr/local/cuda", "/lib64");
}

static bool bind(void *library) {
    const char *missing = NULL;
#define FIND(name, parameters) \
    if (!(*(void **)&blas.f.name = dlsym(library, "cublasLt" #name))) missing = #name;
    BLASLT_FUNCTIONS(FIND)
    FIND(GetVersion, )
#undef FIND
    if (missing) return snprintf(blas.why, sizeof blas.why, "%s has no cublasLt%s", blas.name, missing), false;
    size_t version = blas.f.GetVersion(), used = strlen(blas.name);
    if (version / 10000 != MAJOR)
        return snprintf(blas.why, sizeof blas.why, "%s is version %zu", blas.name, version), false;
    snprintf(blas.name + used, sizeof blas.name - used, " (%zu.%zu.%zu)", version / 10000, version / 100 % 100,
             version % 100);
    return true;
}

/* With the lock held. */
static void find_library(void) {
    if (blas.tried) return;
    blas.tried = true;
    blas.why[0] = 0;
    void *library = open_library();
    if (library && bind(library)) return;
    blas.f.Matmul = NULL;
}

/* With the lock held: a handle, which needs a GPU. */
static int start(void) {
    find_library();
    if (!blas.f.Matmul)
        return fail(
            E_DEVICE,
            "cuda: cuBLASLt is not usable: tried %s. pip install nvidia-cublas%s brings it, GRPO_CUBLAS names it",
            blas.why, MAJOR == 12 ? "-cu12" : "");
    int status = blas.handle ? 0 : blas.f.Create(&blas.handle);
    return status ? fail(E_DEVICE, "cuda: cublasLtCreate failed with status %d (%s)", status, blas.name) : OK;
}

static void lock(void) { pthread_mutex_lock(&blas.lock); }
static void unlock(void) { pthread_mutex_unlock(&blas.lock); }

const char *blas_name(void) {
    static char text[sizeof blas.why + 64];
    lock();
    find_library();
    if (blas.f.Matmul) snprintf(text, sizeof text, "%s", blas.name);
    else snprintf(text, sizeof text, "none (tried %s)", blas.why);
    unlock();
    return text;
}

/* -- plans --------------------------------------------------------------------------------------------------------- */

#define BLASLT(function, ...)                                                                                  \
    do {                                                                                                       \
        int status_ = blas.f.function(__VA_ARGS__);                                                            \
        if (status_) return fail(E_DEVICE, "cuda: cublasLt" #function ": status %d (%s)", status_, blas.name); \
    } while (0)

/* The best algorithm for the usual number of rows that sums each element in one sequence. */
static int choose(struct blas_plan *plan) {
    void *preference;
    uint64_t workspace = WORKSPACE;
    uint32_t reduction = BLASLT_REDUCTION_SCHEME_NONE, alignment = ALIGNMENT;
    struct blaslt_choice choice;
    int found = 0;
    BLASLT(MatmulPreferenceCreate, &preference);
    BLASLT(MatmulPreferenceSetAttribute, preference, BLASLT_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    BLASLT(MatmulPreferenceSetAttribute, preference, BLASLT_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction);
    for (int attribute = BLASLT_PREF_MIN_ALIGNMENT_A_BYTES; attribute <= BLASLT_PREF_MIN_ALIGNMENT_D_BYTES; attribute++)
        BLASLT(MatmulPreferenceSetAttribute, preference, attribute, &alignment, sizeof alignment);
    int status = blas.f.MatmulAlgoGetHeuristic(blas.handle, plan->desc, plan->a, plan->b, plan->d, plan->d, preference,
                                               1, &choice, &found);
    BLASLT(MatmulPreferenceDestroy, preference);
    if (status && status != BLASLT_NOT_SUPPORTED)
        return fail(E_DEVICE, "cuda: cuBLASLt finds no algorithm: status %d (%s)", status, blas.name);
    plan->none = status || !found || choice.status || choice.workspace > WORKSPACE;
    plan->algo = choice.algo;
    plan->workspace = choice.workspace;
    return OK;
}

/* The bias as the library takes it, bf16, behind the workspace; its values are of that kind on this backend. */
static int place_bias(real **out, const struct cuda_ctx *ctx, struct blas_plan *plan) {
    char *memory;
    TRY(scratch((void **)&memory, ctx, WORKSPACE + (size_t)plan->shape.m * sizeof(bf16)));
    *out = memory + WORKSPACE;
    BLASLT(MatmulDescSetAttribute, plan->desc, BLASLT_DESC_BIAS_POINTER, out, sizeof *out);
    return OK;
}

static int set_epilogue(const struct cuda_ctx *ctx, struct blas_plan *plan) {
    int epilogue = BLASLT_EPILOGUE_BIAS;
    real *bias;                                        /* whose address tells how it is aligned */
    BLASLT(MatmulDescSetAttribute, plan->desc, BLASLT_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    return place_bias(&bias, ctx, plan);
}

static int make_plan(struct blas_plan *plan, const struct cuda_ctx *ctx, const struct blas_shape *key) {
    struct blas_shape s = *key;
    int op_a = s.trans_a ? BLASLT_OP_T : BLASLT_OP_N, op_b = s.trans_b ? BLASLT_OP_T : BLASLT_OP_N;
    memset(plan, 0, sizeof *plan);
    plan->shape = *key;
    *(s.rows_are_k ? &s.k : &s.n) = USUAL_ROWS;
    BLASLT(MatmulDescCreate, &plan->desc, BLASLT_COMPUTE_32F, BLASLT_R_32F);
    BLASLT(MatmulDescSetAttribute, plan->desc, BLASLT_DESC_TRANSA, &op_a, sizeof op_a);
    BLASLT(MatmulDescSetAttribute, plan->desc, BLASLT_DESC_TRANSB, &op_b, sizeof op_b);
    if (s.bias) TRY(set_epilogue(ctx, plan));
    BLASLT(MatrixLayoutCreate, &plan->a, BLASLT_R_16BF, (uint64_t)(s.trans_a ? s.k : s.m),
           (uint64_t)(s.trans_a ? s.m : s.k), s.lda);
    BLASLT(MatrixLayoutCreate, &plan->b, BLASLT_R_16BF, (uint64_t)(s.trans_b ? s.n : s.k),
           (uint64_t)(s.trans_b ? s.k : s.n), s.ldb);
    BLASLT(MatrixLayoutCreate, &plan->d, s.float_out ? BLASLT_R_32F : BLASLT_R_16BF, (uint64_t)s.m, (uint64_t)s.n,
           s.ldd);
    return choose(plan);
}

/* -- when ---------------------------------------------------------------------------------------------------------- */

enum blas_mode { AUTO, OWN, CUBLASLT, UNKNOWN };

static enum blas_mode mode(void) {
    const char *text = getenv("GRPO_CUDA_GEMM");
    if (!text || !*text || !strcmp(text, "auto")) return AUTO;
    return !strcmp(text, "own") ? OWN : !strcmp(text, "cublaslt") ? CUBLASLT : UNKNOWN;
}

/* Whether products go to the library, with the lock held. always: by default too, not only where GRPO_CUDA_GEMM says
   cublaslt */
static int wanted(bool *yes, bool always) {
    enum blas_mode m = mode();
    *yes = m == CUBLASLT || (m == AUTO && always);
    if (m == UNKNOWN)
        return fail(E_CONFIG, "GRPO_CUDA_GEMM=%s: must be auto, own or cublaslt", getenv("GRPO_CUDA_GEMM"));
    if (!*yes) return OK;
    find_library();
    *yes = m == CUBLASLT || blas.f.Matmul;
    return *yes ? start() : OK;
}

/* The plan of a shape, made when it is first met, with the lock held; NULL: our own kernels are to compute it. */
static int find_plan(struct blas_plan **out, const struct cuda_ctx *ctx, bool always, struct blas_shape s) {
    bool yes;
    *out = NULL;
    TRY(wanted(&yes, always));
    if (!yes || !s.m || !s.n || !s.k || s.lda % 8 || s.ldb % 8 || s.ldd % 8) return OK;
    *(s.rows_are_k ? &s.k : &s.n) = 0;
    for (int i = 0; i < blas.n_plans && !*out; i++)
        if (!memcmp(&blas.plans[i].shape, &s, sizeof s)) *out = &blas.plans[i];
    if (!*out && blas.n_plans < PLANS) {
        TRY(make_plan(&blas.plans[blas.n_plans], ctx, &s));
        *out = &blas.plans[blas.n_plans++];
    }
    if (*out && (*out)->none) *out = NULL;
    return OK;
}

/* -- products ------------------------------------------------------------------------------------------------------ */

/* The rows of activations are columns of two of the three matrices. */
static int set_rows(struct blas_plan *plan, const struct blas_shape *s) {
    uint64_t rows = (uint64_t)(s->rows_are_k ? s->k : s->n);
    BLASLT(MatrixLayoutSetAttribute, plan->b, BLASLT_LAYOUT_COLS, &rows, sizeof rows);
    BLASLT(MatrixLayoutSetAttribute, s->rows_are_k ? plan->a : plan->d, BLASLT_LAYOUT_COLS, &rows, sizeof rows);
    return OK;
}

struct blas_product {
    struct blas_shape shape;
    const void *a, *b;
    const float *bias;
    void *d;
};

/* An algorithm is asked for once and may refuse a number of rows: then this shape is our own kernels', from now on. */
static void refused(struct blas_plan *plan, const struct blas_shape *s) {
    plan->none = true;
    fprintf(stderr, "grpo: cuda: cuBLASLt does not compute the product (%d, %d) of %d terms: our own kernels do\n",
            s->n, s->m, s->k);
}

/* *done: false where it is refused */
static int matmul(const struct cuda_ctx *ctx, bool *done, struct blas_plan *plan, const struct blas_product *p) {
    float one = 1, beta = p->shape.accumulate ? 1 : 0;
    void *workspace;
    real *bias;
    TRY(set_rows(plan, &p->shape));
    if (p->bias) {
        TRY(place_bias(&bias, ctx, plan));
        TRY(cuda_cast((void *)ctx, bias, p->bias, (size_t)p->shape.m));
    }
    TRY(scratch(&workspace, ctx, plan->workspace));
    int status = blas.f.Matmul(blas.handle, plan->desc, &one, p->a, plan->a, p->b, plan->b, &beta, p->d, plan->d, p->d,
                               plan->d, &plan->algo, workspace, plan->workspace, ctx->stream);
    *done = status != BLASLT_NOT_SUPPORTED;
    if (!*done) refused(plan, &p->shape);
    return status && *done ? fail(E_DEVICE, "cuda: cublasLtMatmul: status %d (%s)", status, blas.name) : OK;
}

static int blas_matmul(const struct cuda_ctx *ctx, bool *done, bool always, const struct blas_product *p) {
    struct blas_plan *plan;
    bool aligned = ((uintptr_t)p->a | (uintptr_t)p->b | (uintptr_t)p->d) % ALIGNMENT == 0;
    lock();
    int status = find_plan(&plan, ctx, always, p->shape);
    *done = !status && plan && aligned;
    if (*done) status = matmul(ctx, done, plan, p);
    unlock();
    return status;
}

/* y^T (O, N) = W x^T + b: row-major matrices are their transposes, column-major */
static struct blas_shape linear_shape(int N, int C, int O, bool add, bool bias) {
    struct blas_shape s = {O, N, C, weight_pitch(C), C, O};
    s.trans_a = true, s.accumulate = add, s.bias = bias;
    return s;
}

/* dx^T (C, N) = W^T dy^T */
static struct blas_shape linear_dx_shape(int N, int C, int O) {
    return (struct blas_shape){C, N, O, weight_pitch(C), O, C};
}

/* dW^T (C, O) += x^T dy */
static struct blas_shape linear_dw_shape(int N, int C, int O) {
    struct blas_shape s = {C, O, N, C, O, C};
    s.trans_b = s.accumulate = s.float_out = s.rows_are_k = true;
    return s;
}

int blas_linear(const struct cuda_ctx *ctx, bool *done, real *y, const real *x, const weight *W, const float *b, int N,
                int C, int O, bool add) {
    struct blas_product p = {linear_shape(N, C, O, add, b != NULL), W, x, b, y};
    return blas_matmul(ctx, done, false, &p);
}

int blas_linear_dx(const struct cuda_ctx *ctx, bool *done, real *dx, const real *dy, const weight *W, int N, int C,
                   int O) {
    struct blas_product p = {linear_dx_shape(N, C, O), W, dy, NULL, dx};
    return blas_matmul(ctx, done, true, &p);
}

/* In training alone, but its sum begins anew at each call and is added once (against same seed, same run), so not by
   default. The library's epilogue for the bias's gradient is of no use at all: it sets db where we add to it, in an
   order that nobody states. */
int blas_linear_dw(const struct cuda_ctx *ctx, bool *done, float *dW, const real *dy, const real *x, int N, int C,
                   int O) {
    struct blas_product p = {linear_dw_shape(N, C, O), x, dy, NULL, dW};
    return blas_matmul(ctx, done, false, &p);
}

/* -- ahead of time ------------------------------------------------------------------------------------------------- */

static int plan_weight(const struct cuda_ctx *ctx, int C, int O) {
    struct blas_plan *plan;
    for (int i = 0; i < 4; i++) TRY(find_plan(&plan, ctx, false, linear_shape(USUAL_ROWS, C, O, i & 1, i & 2)));
    TRY(find_plan(&plan, ctx, true, linear_dx_shape(USUAL_ROWS, C, O)));
    return find_plan(&plan, ctx, false, linear_dw_shape(USUAL_ROWS, C, O));
}

int blas_reserve(const struct cuda_ctx *ctx, const struct op_limits *need) {
    int status = OK;
    lock();
    for (int i = 0; i < need->n_weights && !status; i++)
        status = plan_weight(ctx, need->weights[i].C, need->weights[i].O);
    unlock();
    return status;
}

/* Only where it may be used: opening the library takes a moment. */
size_t blas_scratch(const struct op_limits *need) {
    if (mode() == OWN) return 0;
    lock();
    find_library();
    unlock();
    return blas.f.Matmul ? WORKSPACE + (size_t)need->channels * sizeof(bf16) : 0;
}
