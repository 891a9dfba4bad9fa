/* vec.h on GCC and Clang vectors of 16 bytes, four to a vf: what any CPU runs (SSE2, NEON), with no assumption on FMA.
   Narrow on purpose: a vector wider than the target's registers draws ABI warnings even where every call is inlined. */

typedef float quad __attribute__((vector_size(16)));
typedef uint32_t quad_bits __attribute__((vector_size(16)));
typedef int32_t quad_int __attribute__((vector_size(16)));
typedef uint16_t quad_half __attribute__((vector_size(8)));
typedef struct {
    quad q[4];
} vf;
typedef struct {
    quad_bits q[4];
} vp;

#define VEC_EACH(type, expression)                      \
    type r_;                                            \
    for (int i = 0; i < 4; i++) r_.q[i] = (expression); \
    return r_;

VEC_FN vf vset1(float x){VEC_EACH(vf, ((quad){x, x, x, x}))} VEC_FN vf vzero(void) { return vset1(0); }
VEC_FN vf vload_n(const float *p, int n) {
    vf v = vzero();
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
    quad_half x[4];
    memcpy(x, p, sizeof x);
    VEC_EACH(vf, (quad)(__builtin_convertvector(x[i], quad_bits) << 16))
}
VEC_FN vf vload_bf16_n(const bf16 *p, int n) {
    bf16 full[VEC] = {0};
    memcpy(full, p, (size_t)n * sizeof *p);
    return vload_bf16(full);
}

VEC_FN quad quad_select(quad_int m, quad x, quad y) { return (quad)(((quad_int)x & m) | ((quad_int)y & ~m)); }
VEC_FN quad_half quad_round(quad v) {
    quad_bits bits = (quad_bits)v, rounded = bits + 0x7fff + (bits >> 16 & 1);
    quad_bits kept = (quad_bits)quad_select(v != v, (quad)(bits | 0x400000), (quad)rounded);
    return __builtin_convertvector(kept >> 16, quad_half);
}
VEC_FN void vstore_bf16(bf16 *p, vf v) {
    for (int i = 0; i < 4; i++) {
        quad_half x = quad_round(v.q[i]);
        memcpy(p + 4 * i, &x, sizeof x);
    }
}
VEC_FN void vstore_bf16_n(bf16 *p, vf v, int n) {
    bf16 full[VEC];
    vstore_bf16(full, v);
    memcpy(p, full, (size_t)n * sizeof *p);
}

VEC_FN vf vadd(vf a, vf b){VEC_EACH(vf, a.q[i] + b.q[i])} VEC_FN vf
    vsub(vf a, vf b){VEC_EACH(vf, a.q[i] - b.q[i])} VEC_FN vf vmul(vf a, vf b){VEC_EACH(vf, a.q[i] * b.q[i])} VEC_FN vf
    vdiv(vf a, vf b){VEC_EACH(vf, a.q[i] / b.q[i])} VEC_FN vf
    vfma(vf a, vf b, vf c){VEC_EACH(vf, a.q[i] * b.q[i] + c.q[i])} VEC_FN vf
    vselect_lt(vf a, vf b, vf x, vf y){VEC_EACH(vf, quad_select(a.q[i] < b.q[i], x.q[i], y.q[i]))} VEC_FN vf
    vmax(vf a, vf b) {
    return vselect_lt(b, a, a, b);
}
VEC_FN vf vmin(vf a, vf b) { return vselect_lt(a, b, a, b); }
VEC_FN quad quad_scale2(quad a, quad n) {          /* in two halves: 2^128 is no float */
    quad_int whole = __builtin_convertvector(n, quad_int), half = whole >> 1;
    return a * (quad)((half + 127) << 23) * (quad)((whole - half + 127) << 23);
}
VEC_FN vf vscale2(vf a, vf n){VEC_EACH(vf, quad_scale2(a.q[i], n.q[i]))} VEC_FN vf vsqrt(vf a) {
    float t[VEC];
    vstore(t, a);
    for (int i = 0; i < VEC; i++) t[i] = sqrtf(t[i]);
    return vload(t);
}

VEC_FN vp vload_pairs(const bf16 *p) {
    vp v;
    memcpy(&v, p, sizeof v);
    return v;
}
VEC_FN vp vset1_pair(const bf16 *p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    VEC_EACH(vp, (quad_bits){0} + pair)
}
VEC_FN vf vdot(vf acc, vp a, vp b) {
    for (int i = 0; i < 4; i++) {
        acc.q[i] += (quad)(a.q[i] << 16) * (quad)(b.q[i] << 16);
        acc.q[i] += (quad)(a.q[i] & 0xffff0000u) * (quad)(b.q[i] & 0xffff0000u);
    }
    return acc;
}

VEC_FN float vsum(vf v) {
    quad h = (v.q[0] + v.q[2]) + (v.q[1] + v.q[3]);
    return (h[0] + h[2]) + (h[1] + h[3]);
}
VEC_FN float vlargest(vf v) {
    float t[VEC];
    vstore(t, v);
    for (int half = VEC / 2; half; half /= 2)
        for (int i = 0; i < half; i++) t[i] = t[i] > t[i + half] ? t[i] : t[i + half];
    return t[0];
}

typedef struct {
    quad_int q[4];
} vi;
typedef uint8_t quad_byte __attribute__((vector_size(4)));
VEC_FN vi viset1(int32_t x) { VEC_EACH(vi, (quad_int){0} + x); }
VEC_FN vi viset_quads(int32_t a, int32_t b, int32_t c, int32_t d) {
    const int32_t x[4] = {a, b, c, d};
    VEC_EACH(vi, (quad_int){0} + x[i]);
}
VEC_FN vi vimla(vi acc, vi a, vi b) { VEC_EACH(vi, acc.q[i] + a.q[i] * b.q[i]); }
VEC_FN vi vishift(vi a, int n) { VEC_EACH(vi, a.q[i] >> n); }
VEC_FN quad_int quad_widen(const uint8_t *p) {
    quad_byte x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, quad_int);
}
VEC_FN vi viload_bytes(const uint8_t *p) { VEC_EACH(vi, quad_widen(p + 4 * i)); }
VEC_FN vi viload_quads(const uint8_t *p, const uint8_t *q, const uint8_t *r, const uint8_t *s) {
    const uint8_t *at[4] = {p, q, r, s};
    VEC_EACH(vi, quad_widen(at[i]));
}
VEC_FN quad_byte quad_bytes(quad_int v) {
    v &= v > 0;
    return __builtin_convertvector(v | (v > 255), quad_byte);
}
VEC_FN void vistore_bytes(uint8_t *p, vi v) {
    for (int i = 0; i < 4; i++) {
        quad_byte x = quad_bytes(v.q[i]);
        memcpy(p + 4 * i, &x, 4);
    }
}
VEC_FN void vistore_triples(uint8_t *p, vi v) {
    for (int i = 0; i < 4; i++) {
        quad_byte x = quad_bytes(v.q[i]);
        memcpy(p + 3 * i, &x, 3);
    }
}
