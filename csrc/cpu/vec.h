/* The one vector type of the CPU kernels: `vf`, 16 floats, and `vp`, 16 pairs of bf16. Every kernel is written once on
   them and compiled once a tier: one zmm register with VEC_AVX512 (VEC_BF16 adds vdpbf16ps), two ymm with VEC_AVX2,
   GCC vectors otherwise. All tiers round alike except where vdpbf16ps sums pairs in its own way: products of bf16 are
   exact in fp32, so vdot by two FMAs and by multiply-then-add agree, and every horizontal sum is the same tree.
   _n forms touch only the first n (0..16) elements; loads fill the rest with 0. */
#ifndef GRPO_CPU_VEC_H
#define GRPO_CPU_VEC_H

#include "base/base.h"

#include <math.h>

enum { VEC = 16 };
#define VEC_FN static inline __attribute__((always_inline, unused))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(VEC_AVX512)
#include "cpu/vec_avx512.h"
#elif defined(VEC_AVX2)
#include "cpu/vec_avx2.h"
#else
#include "cpu/vec_portable.h"
#endif

/* Each vec_*.h gives
     vf   vzero()  vset1(x)  vload(p)  vload_n(p, n)  vload_bf16(p)  vload_bf16_n(p, n)
     void vstore(p, v)  vstore_n(p, v, n)  vstore_bf16(p, v)  vstore_bf16_n(p, v, n)      to nearest even, NaN stays NaN
     vf   vadd  vsub  vmul  vdiv (a, b)   vfma(a, b, c) = a b + c   vsqrt(a)
     vf   vmax(a, b) = a > b ? a : b      vmin(a, b) = a < b ? a : b      so a NaN in a is dropped, one in b is kept
     vf   vselect_lt(a, b, x, y) = a < b ? x : y
     vf   vscale2(a, n) = a 2^n, n integral in [-126, 128]
     vp   vload_pairs(p)        32 bf16 from p
     vp   vset1_pair(p)         the two bf16 at p, 16 times; p need only be 2-byte aligned
     vf   vdot(acc, a, b)       acc + a.lo b.lo + a.hi b.hi
     float vsum(v)  vlargest(v)   fold 16 to 8 to 4 to 2 to 1, always this tree
   and for bytes `vi`, 16 int32:
     vi   viset1(x)   viset_quads(a, b, c, d)   four lanes each   vimla(acc, a, b) = acc + a b   vishift(a, n) = a >> n
     vi   viload_bytes(p)   viload_quads(p, q, r, s)    16 bytes; four bytes each
     void vistore_bytes(p, v)   vistore_triples(p, v)   each lane to the nearest of 0..255; of four the first three */

VEC_FN vf vneg(vf a) { return vsub(vzero(), a); }

/* exp, about 1 ulp. Cephes' reduction x = n ln2 + r with ln2 in two parts and a degree-6 polynomial on |r| <= ln2/2.
   Below ln(FLT_MIN) the result is 0 (so -Inf gives 0), above ln(FLT_MAX) it is Inf; NaN stays NaN. */
VEC_FN vf vexp(vf x) {
    const vf lowest = vset1(-87.3365447f), round = vset1(0x1.8p23f);
    vf t = vmin(vset1(89.0f), vmax(lowest, x));
    vf n = vsub(vadd(vmul(t, vset1(1.44269504088896341f)), round), round);
    vf r = vfma(n, vset1(-0.693359375f), t);
    r = vfma(n, vset1(2.12194440e-4f), r);
    vf p = vset1(1.9875691500e-4f);
    p = vfma(p, r, vset1(1.3981999507e-3f));
    p = vfma(p, r, vset1(8.3334519073e-3f));
    p = vfma(p, r, vset1(4.1665795894e-2f));
    p = vfma(p, r, vset1(1.6666665459e-1f));
    p = vfma(p, r, vset1(5.0000001201e-1f));
    p = vfma(p, vmul(r, r), r);
    p = vadd(p, vset1(1.0f));
    return vselect_lt(x, lowest, vzero(), vscale2(p, n));
}

/* the same bits for one number */
VEC_FN float exp_one(float x) { return vlargest(vexp(vset1(x))); }

#endif
