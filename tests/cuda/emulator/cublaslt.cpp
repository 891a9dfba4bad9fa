/* cuBLASLt as far as csrc/cuda/cublaslt.h declares it, computed by three loops on the emulator's stream. It holds us to
   what the library asks: column-major layouts that fit the product, types, aligned pointers, the workspace of the
   algorithm, a bias of the type of d where the epilogue adds one. FAKE_REFUSES: a number of rows that no algorithm
   takes. */
#include "base/base.h"
#include "cuda/cublaslt.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <vector>

namespace {

enum { INVALID = 7, WORKSPACE = 4096, COOKIE = 0x1ab5 };
struct blaslt_layout { int type; uint64_t rows, cols; int64_t ld; };
struct description { int compute, scale; std::map<int, int> set; const bf16 *bias; };
struct preference { uint64_t workspace; uint32_t reduction, alignment[4]; };
int chosen, ran;

float element(const blaslt_layout &l, const void *p, uint64_t row, uint64_t col) {
    uint64_t at = col * (uint64_t)l.ld + row;
    return l.type == BLASLT_R_32F ? ((const float *)p)[at] : bf16_to_float(((const bf16 *)p)[at]);
}

/* whether op(a) (m, k), op(b) (k, n) and d (m, n) fit */
bool fits(description &d, const blaslt_layout &a, const blaslt_layout &b, const blaslt_layout &c) {
    bool ta = d.set[BLASLT_DESC_TRANSA] == BLASLT_OP_T, tb = d.set[BLASLT_DESC_TRANSB] == BLASLT_OP_T;
    bool sizes = (ta ? a.cols : a.rows) == c.rows && (tb ? b.rows : b.cols) == c.cols &&
                 (ta ? a.rows : a.cols) == (tb ? b.cols : b.rows);
    bool types =
        a.type == BLASLT_R_16BF && b.type == BLASLT_R_16BF && (c.type == BLASLT_R_16BF || c.type == BLASLT_R_32F);
    auto wide = [](const blaslt_layout &l) { return l.ld >= (int64_t)l.rows; };
    bool epilogue = d.set[BLASLT_DESC_EPILOGUE] == BLASLT_EPILOGUE_BIAS
                        ? d.bias && (uintptr_t)d.bias % 16 == 0 && c.type == BLASLT_R_16BF
                        : !d.bias;
    return sizes && types && epilogue && wide(a) && wide(b) && wide(c) && d.compute == BLASLT_COMPUTE_32F &&
           d.scale == BLASLT_R_32F;
}

void multiply(bool ta, bool tb, blaslt_layout a_, const void *a, blaslt_layout b_, const void *b, blaslt_layout d_,
              void *d, float beta, const bf16 *bias) {
    uint64_t k = ta ? a_.rows : a_.cols;
    for (uint64_t i = 0; i < d_.rows; i++)
        for (uint64_t j = 0; j < d_.cols; j++) {
            double sum = beta ? (double)beta * element(d_, d, i, j) : 0;
            for (uint64_t l = 0; l < k; l++)
                sum += (double)element(a_, a, ta ? l : i, ta ? i : l) * element(b_, b, tb ? j : l, tb ? l : j);
            if (bias) sum += bf16_to_float(bias[i]);
            uint64_t at = j * (uint64_t)d_.ld + i;
            if (d_.type == BLASLT_R_32F) ((float *)d)[at] = (float)sum;
            else ((bf16 *)d)[at] = bf16_from_float((float)sum);
        }
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

size_t cublasLtGetVersion(void) { return 130100; }
int cublasLtCreate(void **handle) { return *handle = &ran, 0; }

int cublasLtMatmulDescCreate(void **desc, int compute, int scale) {
    return *desc = new description{compute, scale, {}, NULL}, 0;
}
int cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *value, size_t bytes) {
    description *d = (description *)desc;
    bool known =
        attribute == BLASLT_DESC_TRANSA || attribute == BLASLT_DESC_TRANSB || attribute == BLASLT_DESC_EPILOGUE;
    if (attribute == BLASLT_DESC_BIAS_POINTER && bytes == sizeof(void *))
        return d->bias = *(const bf16 *const *)value, 0;
    if (!known || bytes != sizeof(int)) return INVALID;
    d->set[attribute] = *(const int *)value;
    return 0;
}

int cublasLtMatrixLayoutCreate(void **l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    return *l = new blaslt_layout{type, rows, cols, ld}, 0;
}
int cublasLtMatrixLayoutSetAttribute(void *l, int attribute, const void *value, size_t bytes) {
    if (attribute != BLASLT_LAYOUT_COLS || bytes != sizeof(uint64_t)) return INVALID;
    ((blaslt_layout *)l)->cols = *(const uint64_t *)value;
    return 0;
}

int cublasLtMatmulPreferenceCreate(void **p) { return *p = new preference{0, 7, {256, 256, 256, 256}}, 0; }
int cublasLtMatmulPreferenceDestroy(void *p) { return delete (preference *)p, 0; }
int cublasLtMatmulPreferenceSetAttribute(void *p_, int attribute, const void *value, size_t bytes) {
    preference *p = (preference *)p_;
    if (attribute == BLASLT_PREF_MAX_WORKSPACE_BYTES && bytes == 8) p->workspace = *(const uint64_t *)value;
    else if (attribute == BLASLT_PREF_REDUCTION_SCHEME_MASK && bytes == 4) p->reduction = *(const uint32_t *)value;
    else if (attribute >= BLASLT_PREF_MIN_ALIGNMENT_A_BYTES && attribute <= BLASLT_PREF_MIN_ALIGNMENT_D_BYTES &&
             bytes == 4)
        p->alignment[attribute - BLASLT_PREF_MIN_ALIGNMENT_A_BYTES] = *(const uint32_t *)value;
    else return INVALID;
    return 0;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *p_,
                                   int requested, struct blaslt_choice *out, int *returned) {
    const preference *p = (const preference *)p_;
    if (handle != &ran || requested < 1 || c != d ||
        !fits(*(description *)desc, *(blaslt_layout *)a, *(blaslt_layout *)b, *(blaslt_layout *)d))
        return INVALID;
    *returned = p->workspace >= WORKSPACE && p->reduction == BLASLT_REDUCTION_SCHEME_NONE && p->alignment[0] <= 16 &&
                p->alignment[3] <= 16;
    if (!*returned) return BLASLT_NOT_SUPPORTED;
    *out = {};
    out->algo.data[0] = COOKIE;
    out->workspace = WORKSPACE;
    chosen++;
    return 0;
}

int cublasLtMatmul(void *handle, void *desc, const void *alpha, const void *a, void *a_, const void *b, void *b_,
                   const void *beta, const void *c, void *c_, void *d, void *d_, const struct blaslt_algo *algo,
                   void *workspace, size_t bytes, void *stream) {
    description *m = (description *)desc;
    if (handle != &ran || *(const float *)alpha != 1 || c != d || c_ != d_ || algo->data[0] != COOKIE ||
        bytes < WORKSPACE || !workspace)
        return INVALID;
    if (!fits(*m, *(blaslt_layout *)a_, *(blaslt_layout *)b_, *(blaslt_layout *)d_) ||
        ((uintptr_t)a | (uintptr_t)b | (uintptr_t)d) % 16)
        return INVALID;
    bool ta = m->set[BLASLT_DESC_TRANSA], tb = m->set[BLASLT_DESC_TRANSB];
    if (getenv("FAKE_REFUSES") && ((blaslt_layout *)b_)->cols == strtoull(getenv("FAKE_REFUSES"), nullptr, 10))
        return BLASLT_NOT_SUPPORTED;
    ran++;
    cuda_host_stream *on = (cuda_host_stream *)stream;
    on->enqueue(on, [=, bias = m->bias, la = *(blaslt_layout *)a_, lb = *(blaslt_layout *)b_, ld = *(blaslt_layout *)d_,
                     factor = *(const float *)beta] { multiply(ta, tb, la, a, lb, b, ld, d, factor, bias); });
    return 0;
}

/* how often an algorithm was chosen, and a product computed */
void fake_counts(int *choices, int *products) { *choices = chosen, *products = ran; }
}
