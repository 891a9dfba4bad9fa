/* Log-softmax of given logits: float in, sums in double. */
#include "loss/logits.h"

#include <math.h>

#include "base/base.h"
#include "base/threads.h"

struct job {
    float *logp, *entropy;
    const float *z;
    const int32_t *ids;
    double temperature;
    int V;
};

/* with u = (z - max) / temperature: logp = u[id] - log S, entropy = log S - sum e^u u / S */
static void log_softmax_rows(void *arg, int begin, int end, int thread) {
    (void)thread;
    const struct job *job = arg;
    for (int i = begin; i < end; i++) {
        const float *z = job->z + (size_t)i * job->V;
        double max = -INFINITY, sum = 0, weighted = 0;
        for (int v = 0; v < job->V; v++) max = z[v] > max ? z[v] : max;
        for (int v = 0; v < job->V; v++) {
            double u = (z[v] - max) / job->temperature, e = exp(u);
            sum += e;
            if (e > 0) weighted += e * u;
        }
        job->logp[i] = (float)((z[job->ids[i]] - max) / job->temperature - log(sum));
        job->entropy[i] = (float)(log(sum) - weighted / sum);
    }
}

int selective_log_softmax(float *logp, float *entropy, const float *z, const int32_t *ids, double temperature, int N,
                          int V) {
    if (!(temperature > 0 && temperature < INFINITY))
        return fail(E_CONFIG, "temperature must be positive, not %g", temperature);
    for (int i = 0; i < N; i++)
        if (ids[i] < 0 || ids[i] >= V)
            return fail(E_CONFIG, "id %d in row %d lies outside 0..%d", (int)ids[i], i, V - 1);
    struct job job = {logp, entropy, z, ids, temperature, V};
    parallel_for(N, log_softmax_rows, &job);
    for (int i = 0; i < N; i++)
        if (isnan(entropy[i])) return fail(E_NONFINITE, "row %d of the logits has NaN, +Inf or no finite number", i);
    return OK;
}
