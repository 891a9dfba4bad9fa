/* vec.h on AVX2 with FMA: vf is two ymm. */
#include <immintrin.h>

typedef struct {
    __m256 lo, hi;
} vf;
typedef struct {
    __m256i lo, hi;
} vp;

VEC_FN __m256i vec_mask(int n) {          /* lanes below n; n may be out of 0..8 */
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VEC_FN vf vset1(float x) { return (vf){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
VEC_FN vf vzero(void) { return vset1(0); }
VEC_FN vf vload(const float *p) { return (vf){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
VEC_FN vf vload_n(const float *p, int n) {
    __m256 hi = n > 8 ? _mm256_maskload_ps(p + 8, vec_mask(n - 8)) : _mm256_setzero_ps();
    return (vf){_mm256_maskload_ps(p, vec_mask(n)), hi};
}
VEC_FN void vstore(float *p, vf v) {
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}
VEC_FN void vstore_n(float *p, vf v, int n) {
    _mm256_maskstore_ps(p, vec_mask(n), v.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, vec_mask(n - 8), v.hi);
}

VEC_FN __m256 vec_widen(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
VEC_FN vf vload_bf16(const bf16 *p) {
    return (vf){vec_widen(_mm_loadu_si128((const __m128i *)p)), vec_widen(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
VEC_FN vf vload_bf16_n(const bf16 *p, int n) {
    bf16 full[VEC] = {0};
    memcpy(full, p, (size_t)n * sizeof *p);
    return vload_bf16(full);
}

VEC_FN __m256i vec_round_bf16(__m256 v) {
    __m256i bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
VEC_FN void vstore_bf16(bf16 *p, vf v) {
    __m256i packed = _mm256_packus_epi32(vec_round_bf16(v.lo), vec_round_bf16(v.hi));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(packed, 0xd8));
}
VEC_FN void vstore_bf16_n(bf16 *p, vf v, int n) {
    bf16 full[VEC];
    vstore_bf16(full, v);
    memcpy(p, full, (size_t)n * sizeof *p);
}

#define VEC_EACH2(f, a, b) ((vf){f((a).lo, (b).lo), f((a).hi, (b).hi)})
VEC_FN vf vadd(vf a, vf b) { return VEC_EACH2(_mm256_add_ps, a, b); }
VEC_FN vf vsub(vf a, vf b) { return VEC_EACH2(_mm256_sub_ps, a, b); }
VEC_FN vf vmul(vf a, vf b) { return VEC_EACH2(_mm256_mul_ps, a, b); }
VEC_FN vf vdiv(vf a, vf b) { return VEC_EACH2(_mm256_div_ps, a, b); }
VEC_FN vf vmax(vf a, vf b) { return VEC_EACH2(_mm256_max_ps, a, b); }
VEC_FN vf vmin(vf a, vf b) { return VEC_EACH2(_mm256_min_ps, a, b); }
VEC_FN vf vfma(vf a, vf b, vf c) { return (vf){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
VEC_FN vf vsqrt(vf a) { return (vf){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
VEC_FN vf vselect_lt(vf a, vf b, vf x, vf y) {
    return (vf){_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
VEC_FN __m256 vec_scale2(__m256 a, __m256 n) {     /* in two halves: 2^128 is no float */
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
    a = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}
VEC_FN vf vscale2(vf a, vf n) { return VEC_EACH2(vec_scale2, a, n); }

VEC_FN vp vload_pairs(const bf16 *p) {
    return (vp){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 16))};
}
VEC_FN vp vset1_pair(const bf16 *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (vp){_mm256_set1_epi32(pair), _mm256_set1_epi32(pair)};
}
VEC_FN __m256 vec_lower(__m256i pair) { return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)); }
VEC_FN __m256 vec_upper(__m256i pair) {
    return _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000u)));
}
VEC_FN __m256 vec_dot(__m256 acc, __m256i a, __m256i b) {
    acc = _mm256_fmadd_ps(vec_lower(a), vec_lower(b), acc);
    return _mm256_fmadd_ps(vec_upper(a), vec_upper(b), acc);
}
VEC_FN vf vdot(vf acc, vp a, vp b) { return (vf){vec_dot(acc.lo, a.lo, b.lo), vec_dot(acc.hi, a.hi, b.hi)}; }

VEC_FN float vsum(vf v) {
    __m256 h = _mm256_add_ps(v.lo, v.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
VEC_FN float vlargest(vf v) {
    __m256 h = _mm256_max_ps(v.lo, v.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

typedef vp vi;
VEC_FN vi viset1(int32_t x) { return (vi){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
VEC_FN vi viset_quads(int32_t a, int32_t b, int32_t c, int32_t d) {
    return (vi){_mm256_setr_epi32(a, a, a, a, b, b, b, b), _mm256_setr_epi32(c, c, c, c, d, d, d, d)};
}
VEC_FN vi vimla(vi acc, vi a, vi b) {
    return (vi){_mm256_add_epi32(acc.lo, _mm256_mullo_epi32(a.lo, b.lo)),
                _mm256_add_epi32(acc.hi, _mm256_mullo_epi32(a.hi, b.hi))};
}
VEC_FN vi vishift(vi a, int n) { return (vi){_mm256_srai_epi32(a.lo, n), _mm256_srai_epi32(a.hi, n)}; }
VEC_FN vi vec_widen_bytes(__m128i x) {
    return (vi){_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(x, x))};
}
VEC_FN vi viload_bytes(const uint8_t *p) { return vec_widen_bytes(_mm_loadu_si128((const __m128i *)p)); }
VEC_FN vi viload_quads(const uint8_t *p, const uint8_t *q, const uint8_t *r, const uint8_t *s) {
    int32_t a, b, c, d;
    memcpy(&a, p, 4), memcpy(&b, q, 4), memcpy(&c, r, 4), memcpy(&d, s, 4);
    return vec_widen_bytes(_mm_setr_epi32(a, b, c, d));
}
VEC_FN __m128i vec_bytes(vi v) {
    __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.lo, v.hi), 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}
VEC_FN void vistore_bytes(uint8_t *p, vi v) { _mm_storeu_si128((__m128i *)p, vec_bytes(v)); }
VEC_FN void vistore_triples(uint8_t *p, vi v) {
    const __m128i triples = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    __m128i bytes = _mm_shuffle_epi8(vec_bytes(v), triples);
    int32_t end = _mm_extract_epi32(bytes, 2);
    _mm_storel_epi64((__m128i *)p, bytes);
    memcpy(p + 8, &end, 4);
}
