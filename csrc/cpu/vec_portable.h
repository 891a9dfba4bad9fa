/* vec.h on GCC/Clang vectors: what any CPU runs (SSE2 or NEON as the compiler sees fit), with no assumption on FMA. */
#pragma GCC diagnostic ignored "-Wpsabi"       /* every function here is inlined: no call passes a vector */

typedef float vf __attribute__((vector_size(64)));
typedef uint32_t vp __attribute__((vector_size(64)));
typedef int32_t vec_mask __attribute__((vector_size(64)));
typedef uint16_t vec_half __attribute__((vector_size(32)));

VEC_FN vf vset1(float x) { return (vf){0} + x; }
VEC_FN vf vzero(void) { return (vf){0}; }
VEC_FN vf vload_n(const float *p, int n) {
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}
VEC_FN vf vload(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
VEC_FN void vstore_n(float *p, vf v, int n) { memcpy(p, &v, (size_t)n * sizeof *p); }
VEC_FN void vstore(float *p, vf v) { memcpy(p, &v, sizeof v); }

VEC_FN vf vload_bf16(const bf16 *p) {
    vec_half x;
    memcpy(&x, p, sizeof x);
    return (vf)(__builtin_convertvector(x, vp) << 16);
}
VEC_FN vf vload_bf16_n(const bf16 *p, int n) {
    bf16 full[VEC] = {0};
    memcpy(full, p, (size_t)n * sizeof *p);
    return vload_bf16(full);
}

VEC_FN vf vec_blend(vec_mask m, vf x, vf y) { return (vf)(((vec_mask)x & m) | ((vec_mask)y & ~m)); }
VEC_FN void vstore_bf16(bf16 *p, vf v) {
    vp bits = (vp)v, rounded = bits + 0x7fff + (bits >> 16 & 1);
    vp kept = (vp)vec_blend(v != v, (vf)(bits | 0x400000), (vf)rounded);
    vec_half x = __builtin_convertvector(kept >> 16, vec_half);
    memcpy(p, &x, sizeof x);
}
VEC_FN void vstore_bf16_n(bf16 *p, vf v, int n) {
    bf16 full[VEC];
    vstore_bf16(full, v);
    memcpy(p, full, (size_t)n * sizeof *p);
}

VEC_FN vf vadd(vf a, vf b) { return a + b; }
VEC_FN vf vsub(vf a, vf b) { return a - b; }
VEC_FN vf vmul(vf a, vf b) { return a * b; }
VEC_FN vf vdiv(vf a, vf b) { return a / b; }
VEC_FN vf vfma(vf a, vf b, vf c) { return a * b + c; }
VEC_FN vf vmax(vf a, vf b) { return vec_blend(a > b, a, b); }
VEC_FN vf vmin(vf a, vf b) { return vec_blend(a < b, a, b); }
VEC_FN vf vselect_lt(vf a, vf b, vf x, vf y) { return vec_blend(a < b, x, y); }
VEC_FN vf vsqrt(vf a) {
    for (int i = 0; i < VEC; i++) a[i] = sqrtf(a[i]);
    return a;
}
VEC_FN vf vpow2(vf n) { return (vf)((__builtin_convertvector(n, vec_mask) + 127) << 23); }

VEC_FN vp vload_pairs(const bf16 *p) {
    vp v;
    memcpy(&v, p, sizeof v);
    return v;
}
VEC_FN vp vset1_pair(const bf16 *p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (vp){0} + pair;
}
VEC_FN vf vdot(vf acc, vp a, vp b) {
    acc += (vf)(a << 16) * (vf)(b << 16);
    return acc + (vf)(a & 0xffff0000u) * (vf)(b & 0xffff0000u);
}

#define VEC_FOLD(v, op)                                                                                                          \
    float t[VEC];                                                                                                                \
    vstore(t, v);                                                                                                                \
    for (int half = VEC / 2; half; half /= 2)                                                                                    \
        for (int i = 0; i < half; i++) t[i] = op(t[i], t[i + half]);                                                             \
    return t[0];
VEC_FN float vec_add1(float a, float b) { return a + b; }
VEC_FN float vec_max1(float a, float b) { return a > b ? a : b; }
VEC_FN float vsum(vf v) { VEC_FOLD(v, vec_add1) }
VEC_FN float vlargest(vf v) { VEC_FOLD(v, vec_max1) }
