/* Softmax of one row of fp32 logits, the same for head and sample, so that both report the same bits. The row is cut
   into chunks of SOFTMAX_CHUNK; a chunk's lanes fold once, chunks add up in double, in order. */
#ifndef GRPO_CPU_SOFTMAX_H
#define GRPO_CPU_SOFTMAX_H

enum { SOFTMAX_CHUNK = 1024 };

/* z[i..i+VEC) of z (n); -Inf beyond n */
VEC_FN vf load_logits(const float *z, int i, int n) {
    float padded[VEC];
    if (n - i >= VEC) return vload(z + i);
    for (int j = 0; j < VEC; j++) padded[j] = i + j < n ? z[i + j] : -INFINITY;
    return vload(padded);
}

/* max z (V); a NaN may go unseen here, it shows in the sums */
VEC_FN float row_max(const float *z, int V) {
    vf m = vset1(-INFINITY);
    for (int i = 0; i < V; i += VEC) m = vmax(m, load_logits(z, i, V));
    return vlargest(m);
}

/* Over z (n), one chunk, and d = z - top: sum of e^d, and of d e^d in *dot. d is cut off at -1000, where e^d is 0, so
   that a logit of -Inf counts as 0 in both; NaN stays. */
VEC_FN float chunk_mass(float *dot, const float *z, int n, float top) {
    vf sum = vzero(), weighted = vzero();
    for (int i = 0; i < n; i += VEC) {
        vf d = vmax(vset1(-1000), vsub(load_logits(z, i, n), vset1(top))), e = vexp(d);
        sum = vadd(sum, e);
        weighted = vfma(d, e, weighted);
    }
    *dot = vsum(weighted);
    return vsum(sum);
}

/* p = softmax(z (V)): max z, lse = log sum exp z, entropy = -sum p log p. NaN or +Inf anywhere, or nothing but -Inf,
   make lse and entropy NaN. mass (chunks of V): sum of e^(z - max) of each chunk; may be NULL. */
static inline __attribute__((unused)) void row_masses(float *mass, const float *z, int V, float *max, float *lse,
                                                      float *entropy) {
    double total = 0, weighted = 0;
    float top = row_max(z, V);
    for (int i = 0; i < V; i += SOFTMAX_CHUNK) {
        float dot, sum = chunk_mass(&dot, z + i, min_int(SOFTMAX_CHUNK, V - i), top);
        if (mass) mass[i / SOFTMAX_CHUNK] = sum;
        total += sum;
        weighted += dot;
    }
    double H = log(total) - weighted / total;
    *max = top;
    *lse = (float)(top + log(total));
    *entropy = (float)(H < 0 ? 0 : H);
}

static inline __attribute__((unused)) void row_stats(const float *z, int V, float *max, float *lse, float *entropy) {
    row_masses(NULL, z, V, max, lse, entropy);
}

#endif
