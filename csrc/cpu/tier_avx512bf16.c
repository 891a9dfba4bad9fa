/* AMD Zen 4 and 5, Intel Cooper Lake: vdpbf16ps. */
#include "cpu/cpu.h"
#if CPU_X86
#define TIER avx512bf16
#define VEC_AVX512
#define VEC_BF16
#define TIER_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"
#include "cpu/tier.inc"
#endif
