/* Philox4x32-10 (Salmon et al., SC'11): counter-based random numbers, the same stream on every backend and for any
   number of threads or slots. Key = the user's seed; counter = (position, sample, prompt, step). */
#ifndef GRPO_RNG_H
#define GRPO_RNG_H

#include <stdint.h>

#ifdef __CUDACC__
#define RNG_FN static __host__ __device__ inline
#else
#define RNG_FN static inline
#endif

struct philox {
    uint32_t x[4];
};

RNG_FN struct philox philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct philox){{c0, c1, c2, c3}};
}

/* Random bits for elements 4 quad .. 4 quad + 3 in an optimiser step (ops.def: adamw): word j is element 4 quad +
   j's, its lower half for m, its upper half for v. The key is apart from the sampler's ("moments" in ASCII). */
RNG_FN struct philox rounding_bits(uint64_t seed, uint32_t step, uint64_t quad) {
    return philox(seed ^ 0x6d6f6d656e7473u, (uint32_t)quad, (uint32_t)(quad >> 32), step, 0);
}

/* The master weight's 8 of that word: mixed from all of it, since a second Philox would cost more than the update
   does. */
RNG_FN uint32_t master_bits(uint32_t word) { return word * 0x9E3779B9u >> 24; }

/* uniform in [0, 1), 24 bits: exact in float32 */
RNG_FN float philox_uniform(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

#endif
