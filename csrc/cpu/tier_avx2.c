/* Intel Haswell, AMD Zen and newer: bf16 widened to fp32, FMA on ymm. */
#include "cpu/cpu.h"
#if CPU_X86
#define TIER avx2
#define VEC_AVX2
#define TIER_TARGET "avx2,fma"
#include "cpu/tier.inc"
#endif
