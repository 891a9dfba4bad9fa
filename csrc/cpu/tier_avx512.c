/* Intel Skylake-SP to Ice Lake: bf16 widened to fp32, FMA on zmm. */
#include "cpu/cpu.h"
#if CPU_X86
#define TIER avx512
#define VEC_AVX512
#define TIER_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#include "cpu/tier.inc"
#endif
