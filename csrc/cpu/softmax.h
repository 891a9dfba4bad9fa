/* Statistics of one row of fp32 logits, the same for head and sample, so that both report the same bits. */
#ifndef GRPO_CPU_SOFTMAX_H
#define GRPO_CPU_SOFTMAX_H

/* p = softmax(z (V)): largest = max z, lse = log sum exp z, entropy = -sum p log p = lse - sum p z. Two passes; NaN and Inf
   in z come out as NaN. Lanes sum V in steps of VEC and fold once: one order, whatever the caller. */
VEC_FN void row_stats(const float *z, int V, float *largest, float *lse, float *entropy) {
    int whole = V / VEC * VEC, tail = V - whole;
    vf m = vset1(-INFINITY);
    for (int i = 0; i < whole; i += VEC) m = vmax(m, vload(z + i));
    float top = vlargest(m);
    for (int i = whole; i < V; i++) top = z[i] > top ? z[i] : top;
    vf shift = vset1(top), sum = vzero(), dot = vzero();          /* of e^(z - top) and (z - top) e^(z - top) */
    for (int i = 0; i < whole; i += VEC) {
        vf d = vsub(vload(z + i), shift), e = vexp(d);
        sum = vadd(sum, e);
        dot = vfma(d, e, dot);
    }
    if (tail) {
        float padded[VEC];
        for (int i = 0; i < VEC; i++) padded[i] = i < tail ? z[whole + i] : top - 1000;      /* e^-1000 = 0, and no Inf * 0 */
        vf d = vsub(vload(padded), shift), e = vexp(d);
        sum = vadd(sum, e);
        dot = vfma(d, e, dot);
    }
    float total = vsum(sum), log_total = logf(total);
    *largest = top;
    *lse = top + log_total;
    *entropy = log_total - vsum(dot) / total;
}

#endif
