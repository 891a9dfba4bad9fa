/* Group-relative advantages. Both aggregations are "normalise strided columns over runs of rows" in another order. */
#include "loss/advantage.h"

#include <math.h>

#include "base/base.h"

#define STD_EPSILON 1e-4

const char *const advantage_scale_names[] = {
    [SCALE_GROUP] = "group", [SCALE_BATCH] = "batch", [SCALE_NONE] = "none", [ADVANTAGE_SCALES] = NULL};
const char *const reward_aggregation_names[] = {[SUM_THEN_NORMALIZE] = "sum_then_normalize",
                                                [NORMALIZE_THEN_SUM] = "normalize_then_sum",
                                                [REWARD_AGGREGATIONS] = NULL};

/* Rewards may be as large as a double: numbers above HUGE_REWARD are measured in units of 2^600, so that no square and
   no sum of them overflows; all others in units of 1. */
#define HUGE_REWARD 0x1p480
#define HUGE_UNIT 0x1p-600

static double unit_of(const double *x, int n, int stride) {
    for (int i = 0; i < n; i++)
        if (fabs(x[(size_t)i * stride]) > HUGE_REWARD) return HUGE_UNIT;
    return 1;
}

struct moments {
    double mean, std;
};    /* of x unit, over what is not NaN; NAN where there are too few */

static struct moments moments(const double *x, int n, int stride, double unit) {
    double first = NAN, sum = 0, squares = 0;
    int count = 0;
    for (int i = 0; i < n; i++) {
        double value = x[(size_t)i * stride] * unit;
        if (isnan(value)) continue;
        if (count++ == 0) first = value;
        sum += value - first;
    }
    if (count == 0) return (struct moments){NAN, NAN};
    double mean = first + sum / count;
    for (int i = 0; i < n; i++) {
        double value = x[(size_t)i * stride] * unit;
        if (!isnan(value)) squares += (value - mean) * (value - mean);
    }
    return (struct moments){mean, count > 1 ? sqrt(squares / (count - 1)) : NAN};
}

static int total_rows(const int32_t *sizes, int n_groups) {
    int n = 0;
    for (int g = 0; g < n_groups; g++) n += sizes[g];
    return n;
}

/* total (n) = sum_k w_k x_k over what is not NaN; NaN where no reward is there at all */
static void weighted_sum(double *total, const double *x, const double *rewards, const double *weights, int n,
                         int n_functions) {
    for (int i = 0; i < n; i++) {
        size_t row = (size_t)i * n_functions;
        int scored = 0;
        total[i] = 0;
        for (int k = 0; k < n_functions; k++) {
            scored |= !isnan(rewards[row + k]);
            if (!isnan(x[row + k])) total[i] += weights[k] * x[row + k];
        }
        if (!scored) total[i] = NAN;
    }
}

/* mean, divisor: of total unit */
static void set_advantage(float *advantage, const double *total, int n, double unit, double mean, double divisor) {
    for (int i = 0; i < n; i++) {
        double a = (total[i] * unit - mean) / divisor;
        advantage[i] = isnan(a) ? 0 : (float)a;
    }
}

static void sum_then_normalize(float *advantage, double *total, const double *rewards, const double *weights,
                               const int32_t *sizes, int n_groups, int n_functions, enum advantage_scale scale) {
    int n = total_rows(sizes, n_groups), start = 0;
    weighted_sum(total, rewards, rewards, weights, n, n_functions);
    double batch_unit = unit_of(total, n, 1), batch_std = moments(total, n, 1, batch_unit).std;
    for (int g = 0; g < n_groups; g++) {
        double unit = scale == SCALE_GROUP ? unit_of(total + start, sizes[g], 1) : batch_unit;
        struct moments group = moments(total + start, sizes[g], 1, unit);
        double std = scale == SCALE_GROUP ? group.std : batch_std;
        double divisor = scale == SCALE_NONE ? unit : std + STD_EPSILON * unit;
        set_advantage(advantage + start, total + start, sizes[g], unit, group.mean, divisor);
        start += sizes[g];
    }
}

static void normalize_then_sum(float *advantage, double *total, double *z, const double *rewards, const double *weights,
                               const int32_t *sizes, int n_groups, int n_functions) {
    int n = total_rows(sizes, n_groups), start = 0;
    for (int g = 0; g < n_groups; g++) {
        for (int k = 0; k < n_functions; k++) {
            size_t at = (size_t)start * n_functions + k;
            double unit = unit_of(rewards + at, sizes[g], n_functions);
            struct moments m = moments(rewards + at, sizes[g], n_functions, unit);
            for (int i = 0; i < sizes[g]; i++, at += n_functions)
                z[at] = (rewards[at] * unit - m.mean) / (m.std + STD_EPSILON * unit);
        }
        start += sizes[g];
    }
    weighted_sum(total, z, rewards, weights, n, n_functions);
    struct moments batch = moments(total, n, 1, 1);
    set_advantage(advantage, total, n, 1, batch.mean, batch.std + STD_EPSILON);
}

int group_advantages(float *advantage, const double *rewards, const double *weights, const int32_t *sizes, int n_groups,
                     int n_functions, enum advantage_scale scale, enum reward_aggregation aggregation) {
    for (int g = 0; g < n_groups; g++)
        if (sizes[g] < 2)
            return fail(E_CONFIG, "group %d has %d completion(s); advantages are relative to a group of 2 or more", g,
                        (int)sizes[g]);
    int n = total_rows(sizes, n_groups);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n_functions; k++)
            if (isinf(rewards[(size_t)i * n_functions + k]))
                return fail(E_NONFINITE, "reward %d of completion %d is infinite", k, i);
    double *scratch = memory_new(((size_t)n * (n_functions + 1) + 1) * sizeof *scratch);
    if (!scratch) return fail(E_MEMORY, "no memory for the advantages of %d completions", n);
    if (aggregation == NORMALIZE_THEN_SUM)
        normalize_then_sum(advantage, scratch, scratch + n, rewards, weights, sizes, n_groups, n_functions);
    else sum_then_normalize(advantage, scratch, rewards, weights, sizes, n_groups, n_functions, scale);
    int status = OK;
    for (int i = 0; i < n && !status; i++)
        if (isinf(scratch[i]) || !isfinite(advantage[i]))
            status = fail(E_NONFINITE, "the rewards of completion %d are too large for an advantage", i);
    memory_free(scratch);
    return status;
}
