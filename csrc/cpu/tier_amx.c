/* Intel Sapphire Rapids and newer: GEMMs in AMX tiles, everything else as in tier avx512bf16. */
#include "cpu/cpu.h"
#if CPU_X86
#define TIER amx
#define VEC_AVX512
#define VEC_BF16
#define GEMM_AMX
#define TIER_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,amx-tile,amx-bf16"
#include "cpu/tier.inc"
#endif
