/* The GRPO family of losses: one pass over a sequence for its ratio, one over its tokens, one to spread what came
   through the sequence's ratio. Clarity over speed: this is O(tokens) beside O(tokens x parameters). */
#include "loss/loss.h"

#include <math.h>
#include <stddef.h>

#include "base/base.h"

const char *const loss_type_names[] = {[LOSS_GRPO] = "grpo",           [LOSS_DR_GRPO] = "dr_grpo", [LOSS_DAPO] = "dapo",
                                       [LOSS_BNPO] = "bnpo",           [LOSS_CISPO] = "cispo",     [LOSS_SAPO] = "sapo",
                                       [LOSS_LUSPO] = "luspo",         [LOSS_VESPO] = "vespo",     [LOSS_GMPO] = "gmpo",
                                       [LOSS_REINFORCE] = "reinforce", [LOSS_TYPES] = NULL};
const char *const loss_aggregation_names[] = {[SEQUENCE_MEAN_TOKEN_MEAN] = "sequence-mean-token-mean",
                                              [TOKEN_MEAN] = "token-mean",
                                              [SEQUENCE_MEAN_TOKEN_SUM] = "sequence-mean-token-sum",
                                              [FIXED_LENGTH] = "fixed-length",
                                              [LOSS_AGGREGATIONS] = NULL};
const char *const loss_level_names[] = {
    [LEVEL_TOKEN] = "token", [LEVEL_SEQUENCE] = "sequence", [LEVEL_PRODUCT] = "sequence_product", [LOSS_LEVELS] = NULL};
const char *const kl_estimator_names[] = {[KL_K1] = "k1", [KL_K2] = "k2", [KL_K3] = "k3", [KL_ESTIMATORS] = NULL};

static const int implied_aggregation[LOSS_TYPES] = {[LOSS_GRPO] = SEQUENCE_MEAN_TOKEN_MEAN,
                                                    [LOSS_DR_GRPO] = FIXED_LENGTH,
                                                    [LOSS_DAPO] = TOKEN_MEAN,
                                                    [LOSS_BNPO] = TOKEN_MEAN,
                                                    [LOSS_CISPO] = TOKEN_MEAN,
                                                    [LOSS_SAPO] = SEQUENCE_MEAN_TOKEN_MEAN,
                                                    [LOSS_LUSPO] = SEQUENCE_MEAN_TOKEN_SUM,
                                                    [LOSS_VESPO] = TOKEN_MEAN,
                                                    [LOSS_GMPO] = SEQUENCE_MEAN_TOKEN_MEAN,
                                                    [LOSS_REINFORCE] = TOKEN_MEAN};

static int is_clip_family(int type) {
    return type == LOSS_GRPO || type == LOSS_DR_GRPO || type == LOSS_DAPO || type == LOSS_BNPO || type == LOSS_LUSPO;
}
static int has_own_ratio(int type) { return type == LOSS_VESPO || type == LOSS_GMPO || type == LOSS_REINFORCE; }

/* ---- options --------------------------------------------------------------------------------------------------- */

static int check_range(const char *name, double x, double low, double high) {
    if (x >= low && x <= high) return OK;
    if (high == INFINITY) return fail(E_CONFIG, "%s must be at least %g, not %g", name, low, x);
    return fail(E_CONFIG, "%s must lie in %g .. %g, not %g", name, low, high, x);
}

static int check_positive(const char *name, double x) {
    return x > 0 && x < INFINITY ? OK : fail(E_CONFIG, "%s must be positive, not %g", name, x);
}

int loss_config_finish(struct loss_config *c) {
    if (c->loss_type < 0 || c->loss_type >= LOSS_TYPES) return fail(E_CONFIG, "unknown loss_type %d", c->loss_type);
    if (isnan(c->epsilon_high)) c->epsilon_high = c->epsilon;
    if (c->aggregation < 0) c->aggregation = implied_aggregation[c->loss_type];
    TRY(check_range("epsilon", c->epsilon, 0, INFINITY));
    TRY(check_range("epsilon_high", c->epsilon_high, 0, INFINITY));
    TRY(check_positive("max_completion_length", c->max_completion_length));
    TRY(check_range("beta", c->beta, 0, INFINITY));
    TRY(check_positive("sapo_temperature_pos", c->sapo_temperature_pos));
    TRY(check_positive("sapo_temperature_neg", c->sapo_temperature_neg));
    TRY(check_range("top_entropy_quantile", c->top_entropy_quantile, 0, 1));
    TRY(check_range("entropy_coef_delta", c->entropy_coef_delta, 0, INFINITY));
    TRY(check_range("entropy_coef_max", c->entropy_coef_max, c->entropy_coef_min, INFINITY));
    if (!(c->delta > 0)) return fail(E_CONFIG, "delta must be positive or None, not %g", c->delta);
    const char *type = loss_type_names[c->loss_type];
    if (has_own_ratio(c->loss_type) && c->importance_sampling_level != LEVEL_TOKEN)
        return fail(E_CONFIG, "loss_type '%s' has its own ratio: importance_sampling_level must be 'token'", type);
    if (c->delta < INFINITY && !is_clip_family(c->loss_type))
        return fail(E_CONFIG, "delta has no effect on loss_type '%s', only where the ratio is clipped", type);
    if (c->cispo_two_sided && c->loss_type != LOSS_CISPO)
        return fail(E_CONFIG, "cispo_two_sided has no effect on loss_type '%s'", type);
    return OK;
}

double loss_adapt_entropy(double *coef, double entropy, const struct loss_config *c) {
    int low = entropy <= c->entropy_target;
    if (low) *coef = fmin(*coef + c->entropy_coef_delta, c->entropy_coef_max);
    else *coef = fmax(*coef - c->entropy_coef_delta, c->entropy_coef_min);
    return low ? *coef : 0;
}

/* ---- metrics --------------------------------------------------------------------------------------------------- */

void loss_metrics_init(struct loss_metrics *m) {
    *m = (struct loss_metrics){.clip_low_min = INFINITY,
                               .clip_high_max = -INFINITY,
                               .ratio_min = INFINITY,
                               .ratio_max = -INFINITY,
                               .logp_difference_max = 0};
}

static void add_mean(struct loss_mean *m, double sum, double count) {
    m->sum += sum;
    m->count += count;
}

/* ---- one sequence ---------------------------------------------------------------------------------------------- */

/* exp of a clamped exponent; live = d(clamped)/d(exponent), 0 where the clamp bites */
struct ratio {
    double value;
    int live;
};

struct sequence {
    const struct loss_config *c;
    const float *logp, *old_logp, *ref_logp, *entropy;
    const uint8_t *mask;
    int length;
    double advantage;
    double entropy_threshold;            /* -INFINITY: every token */
    int n;                               /* loss-carrying tokens */
    int n_geometric;                     /* gmpo: tokens in the geometric mean */
    struct ratio ratio; /* of the mean log ratio (sequence level), its sum (product) or gmpo's mean */
    double phi; /* vespo */
    int keep; /* 0: dropped by the off-policy mask */
    double clamped; /* exponents that were clamped */
};

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

static struct ratio clamped_exp(struct sequence *s, double exponent) {
    int live = fabs(exponent) <= LOSS_MAX_EXPONENT;
    s->clamped += !live;
    return (struct ratio){exp(clamp(exponent, -LOSS_MAX_EXPONENT, LOSS_MAX_EXPONENT)), live};
}

static double log_ratio(const struct sequence *s, int t) { return (double)s->logp[t] - s->old_logp[t]; }

static int high_entropy(const struct sequence *s, int t) {
    return s->entropy_threshold == -INFINITY || s->entropy[t] >= s->entropy_threshold;
}

/* gmpo clips one side only: the ratio may not grow further where A > 0 nor shrink further where A <= 0 */
static double gmpo_clip(const struct sequence *s, double x) {
    return s->advantage > 0 ? fmin(x, s->c->epsilon_high) : fmax(x, -s->c->epsilon);
}
static int in_geometric_mean(const struct sequence *s, int t) { return s->mask[t] && high_entropy(s, t); }

#define VESPO_MIN_EXPONENT (-18.420680743952367) /* log(1e-8), as in TRL */

/* phi(w), normalised to phi(1) = 1 */
static double vespo_phi(const struct sequence *s, double sum_log_ratio) {
    const struct loss_config *c = s->c;
    double log_w = clamp(sum_log_ratio, VESPO_MIN_EXPONENT, LOSS_MAX_EXPONENT);
    double k = s->advantage >= 0 ? c->vespo_k_pos : c->vespo_k_neg;
    double lambda = fmax(s->advantage >= 0 ? c->vespo_lambda_pos : c->vespo_lambda_neg, 1e-4);
    double phi = exp(lambda + k * log_w - lambda * exp(log_w));
    return isfinite(phi) ? phi : 0;
}

/* What holds for the whole sequence: token counts, ratio, phi, off-policy mask. */
static void measure(struct sequence *s) {
    const struct loss_config *c = s->c;
    double sum = 0, clamped_sum = 0, geometric_sum = 0;
    for (int t = 0; t < s->length; t++) {
        if (!s->mask[t]) continue;
        double x = log_ratio(s, t);
        s->n++;
        sum += x;
        clamped_sum += clamp(x, -LOSS_MAX_EXPONENT, LOSS_MAX_EXPONENT);
        if (c->loss_type == LOSS_GMPO && in_geometric_mean(s, t)) {
            s->n_geometric++;
            geometric_sum += gmpo_clip(s, x);
        }
    }
    if (s->n == 0) return;
    double mean = sum / s->n;
    if (c->importance_sampling_level == LEVEL_SEQUENCE) s->ratio = clamped_exp(s, mean);
    if (c->importance_sampling_level == LEVEL_PRODUCT) s->ratio = clamped_exp(s, sum);
    if (c->loss_type == LOSS_GMPO) s->ratio = clamped_exp(s, geometric_sum / max_int(s->n_geometric, 1));
    if (c->loss_type == LOSS_VESPO) {
        s->clamped += clamped_sum < VESPO_MIN_EXPONENT || clamped_sum > LOSS_MAX_EXPONENT;
        s->phi = vespo_phi(s, clamped_sum);
    }
    s->keep = s->advantage >= 0 || -mean <= c->off_policy_mask_threshold;
}

/* A summand of the loss: its value, its derivatives by the token's logp (the ratio held fixed) and by the log ratio. */
struct term {
    double value, dlogp, dlog_ratio;
};

static struct term clip_term(const struct loss_config *c, double ratio, double A) {
    double capped = fmin(ratio, c->delta), clipped = clamp(ratio, 1 - c->epsilon, 1 + c->epsilon_high);
    double chosen = capped * A <= clipped * A ? capped : clipped;
    return (struct term){-chosen * A, 0, chosen == ratio ? -ratio * A : 0};
}

static struct term sapo_term(const struct loss_config *c, double ratio, double A) {
    double tau = A > 0 ? c->sapo_temperature_pos : c->sapo_temperature_neg;
    double gate = 1 / (1 + exp(-tau * (ratio - 1)));
    return (struct term){-4 / tau * gate * A, 0, -4 * gate * (1 - gate) * ratio * A};
}

static double cispo_weight(const struct loss_config *c, double ratio) {
    return c->cispo_two_sided ? clamp(ratio, 1 - c->epsilon, 1 + c->epsilon_high) : fmin(ratio, c->epsilon_high);
}

static struct term policy_term(const struct sequence *s, double logp, double ratio) {
    double A = s->advantage, weight;
    switch (s->c->loss_type) {
    case LOSS_SAPO: return sapo_term(s->c, ratio, A);
    case LOSS_GMPO: return (struct term){-ratio * A, 0, -ratio * A};
    case LOSS_CISPO: weight = cispo_weight(s->c, ratio); break;
    case LOSS_VESPO: weight = s->phi; break;
    case LOSS_REINFORCE: weight = 1; break;
    default: return clip_term(s->c, ratio, A);
    }
    return (struct term){-weight * A * logp, -weight * A, 0};
}

static struct term kl_term(struct sequence *s, int t, double ratio) {
    double x = (double)s->logp[t] - s->ref_logp[t];
    struct term k = {x, 1, 0};
    if (s->c->kl_estimator == KL_K2) k = (struct term){x * x / 2, x, 0};
    if (s->c->kl_estimator == KL_K3) {
        struct ratio inverse = clamped_exp(s, -x);
        k = (struct term){inverse.value + x - 1, 1 - inverse.live * inverse.value, 0};
    }
    if (!s->c->use_bias_correction_kl) return k;
    return (struct term){k.value * ratio, k.dlogp * ratio, k.value * ratio};
}

static double aggregation_weight(const struct loss_config *c, const struct loss_normalizer *norm, int n) {
    switch (c->aggregation) {
    case TOKEN_MEAN: return 1 / norm->tokens;
    case SEQUENCE_MEAN_TOKEN_SUM: return 1 / norm->sequences;
    case FIXED_LENGTH: return 1 / (norm->sequences * c->max_completion_length);
    default: return 1 / (norm->sequences * n);
    }
}

/* Adds what a token shows of the ratio; `low` and `high` count its clips. */
static void observe_ratio(struct loss_metrics *m, const struct sequence *s, int t, double ratio, double *low,
                          double *high) {
    const struct loss_config *c = s->c;
    double A = s->advantage, difference = fabs(log_ratio(s, t));
    add_mean(&m->logp_difference, difference, 1);
    m->logp_difference_max = fmax(m->logp_difference_max, difference);
    add_mean(&m->ratio, ratio, 1);
    m->ratio_min = fmin(m->ratio_min, ratio);
    m->ratio_max = fmax(m->ratio_max, ratio);
    if (is_clip_family(c->loss_type)) {
        double capped = fmin(ratio, c->delta);
        *low += A < 0 && capped < 1 - c->epsilon;
        *high += A > 0 && capped > 1 + c->epsilon_high;
    } else if (c->loss_type == LOSS_GMPO) {
        *low += A < 0 && log_ratio(s, t) < -c->epsilon;
        *high += A > 0 && log_ratio(s, t) > c->epsilon_high;
    } else if (c->loss_type == LOSS_CISPO) {
        *high += c->cispo_two_sided ? cispo_weight(c, ratio) != ratio : A > 0 && ratio > c->epsilon_high;
    }
}

/* Clip fractions: a token counts once, or the sequence does when it has one ratio. */
static void observe_clips(struct loss_metrics *m, const struct sequence *s, double low, double high) {
    const struct loss_config *c = s->c;
    double unit = c->importance_sampling_level != LEVEL_TOKEN ? 1.0 / s->n : 1;
    if (c->loss_type == LOSS_CISPO) add_mean(&m->cispo_clip, high * unit, s->n * unit);
    if (c->loss_type == LOSS_VESPO) add_mean(&m->vespo_phi, s->phi, 1);
    if (c->off_policy_mask_threshold < INFINITY) add_mean(&m->off_policy_dropped, !s->keep, 1);
    if (!is_clip_family(c->loss_type) && c->loss_type != LOSS_GMPO) return;
    add_mean(&m->clip_low, low * unit, s->n * unit);
    add_mean(&m->clip_high, high * unit, s->n * unit);
    m->clip_low_min = fmin(m->clip_low_min, low / s->n);
    m->clip_high_max = fmax(m->clip_high_max, high / s->n);
}

/* What flowed into the sequence's ratio, spread over the tokens it is a mean or the product of. */
static void spread(float *coef, const struct sequence *s, double dlog_ratio) {
    int geometric = s->c->loss_type == LOSS_GMPO;
    int tokens = s->c->importance_sampling_level == LEVEL_PRODUCT ? 1 : s->n;
    double share = s->ratio.live * dlog_ratio / (geometric ? max_int(s->n_geometric, 1) : tokens);
    for (int t = 0; t < s->length; t++) {
        if (!s->mask[t]) continue;
        double x = log_ratio(s, t);
        if (geometric && (!in_geometric_mean(s, t) || gmpo_clip(s, x) != x)) continue;
        coef[t] = (float)(coef[t] + share);
    }
}

/* coef (zero before) = gradient of the policy and KL terms; returns their sum, aggregated. */
static double eval_terms(float *coef, struct loss_metrics *m, struct sequence *s, const struct loss_normalizer *norm) {
    const struct loss_config *c = s->c;
    int sequence_kl_ratio = c->importance_sampling_level != LEVEL_TOKEN;
    int sequence_ratio = sequence_kl_ratio || c->loss_type == LOSS_GMPO;
    double weight = aggregation_weight(c, norm, s->n), sum = 0, through = 0, low = 0, high = 0;
    for (int t = 0; t < s->length; t++) {
        if (!s->mask[t]) continue;
        struct ratio token = sequence_kl_ratio ? s->ratio : clamped_exp(s, log_ratio(s, t));
        struct ratio ratio = sequence_ratio ? s->ratio : token;
        double dlogp = 0;
        if (s->keep && (c->loss_type == LOSS_GMPO || high_entropy(s, t))) {
            struct term p = policy_term(s, s->logp[t], ratio.value);
            sum += p.value;
            dlogp += p.dlogp;
            if (sequence_ratio) through += p.dlog_ratio;
            else dlogp += token.live * p.dlog_ratio;
        }
        if (c->beta != 0) {
            struct term k = kl_term(s, t, token.value);
            sum += c->beta * k.value;
            dlogp += c->beta * k.dlogp;
            if (sequence_kl_ratio) through += c->beta * k.dlog_ratio;
            else dlogp += c->beta * token.live * k.dlog_ratio;
            add_mean(&m->kl, k.value, 1);
        }
        coef[t] = (float)(weight * dlogp);
        observe_ratio(m, s, t, token.value, &low, &high);
    }
    observe_clips(m, s, low, high);
    if (sequence_ratio) spread(coef, s, weight * through);
    m->policy_loss += weight * sum;
    return weight * sum;
}

/* ecoef (zero before) = gradient of - coef mean H over the tokens that the policy term acts on; returns that term */
static double eval_entropy(float *ecoef, struct loss_metrics *m, const struct sequence *s, double weight) {
    double sum = 0, observed = 0;
    for (int t = 0; t < s->length; t++) {
        if (!s->mask[t]) continue;
        observed += s->entropy[t];
        if (!high_entropy(s, t)) continue;
        sum += s->entropy[t];
        if (ecoef) ecoef[t] = (float)-weight;
    }
    add_mean(&m->entropy, observed, s->n);
    return -weight * sum;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static int check_finite(const struct sequence *s, int index) {
    if (!isfinite(s->advantage)) return fail(E_NONFINITE, "the advantage of completion %d is %g", index, s->advantage);
    const struct {
        const char *name;
        const float *x;
    } arrays[] = {{"logp", s->logp}, {"old_logp", s->old_logp}, {"ref_logp", s->ref_logp}, {"entropy", s->entropy}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        const float *x = arrays[i].x;
        for (int t = 0; x && t < s->length; t++)
            if (s->mask[t] && !isfinite(x[t]))
                return fail(E_NONFINITE, "%s of completion %d, token %d is %g", arrays[i].name, index, t, x[t]);
    }
    return OK;
}

/* Fills in what the normaliser may leave open; says what is missing. */
static int resolve(struct loss_normalizer *n, const struct loss_config *c, const struct loss_batch *batch,
                   const float *ecoef) {
    int selective = c->top_entropy_quantile < 1;
    if (!(n->tokens >= 0 && n->sequences >= 0))
        return fail(E_CONFIG, "the normalizer needs the tokens and sequences of the whole step");
    if (c->beta != 0 && !batch->ref_logp)
        return fail(E_CONFIG, "beta is %g, but there are no reference log-probs", c->beta);
    if (selective && isnan(n->entropy_threshold))
        return fail(E_CONFIG, "top_entropy_quantile needs the normalizer's entropy_threshold");
    if (isnan(n->entropy_coef)) {
        if (c->use_adaptive_entropy) return fail(E_CONFIG, "use_adaptive_entropy needs the normalizer's entropy_coef");
        n->entropy_coef = c->entropy_coef;
    }
    int bonus = n->entropy_coef != 0;
    if (bonus && selective && isnan(n->entropy_tokens))
        return fail(E_CONFIG, "an entropy bonus with top_entropy_quantile needs the normalizer's entropy_tokens");
    if ((bonus || selective) && !batch->entropy)
        return fail(E_CONFIG, "entropy options are on, but there are no entropies");
    if (bonus && !ecoef) return fail(E_CONFIG, "an entropy bonus needs room for its gradient");
    if (!selective) n->entropy_threshold = -INFINITY;
    if (!selective || isnan(n->entropy_tokens)) n->entropy_tokens = n->tokens;
    n->tokens = fmax(n->tokens, 1);
    n->sequences = fmax(n->sequences, 1);
    n->entropy_tokens = fmax(n->entropy_tokens, 1);
    return OK;
}

int loss_eval(double *loss, float *coef, float *ecoef, struct loss_metrics *metrics, const struct loss_config *c,
              const struct loss_normalizer *norm, const struct loss_batch *batch) {
    struct loss_normalizer n = *norm;
    TRY(resolve(&n, c, batch, ecoef));
    size_t start = 0;
    for (int i = 0; i < batch->n_sequences; i++) {
        struct sequence s = {.c = c,
                             .logp = batch->logp + start,
                             .old_logp = batch->old_logp + start,
                             .ref_logp = c->beta != 0 ? batch->ref_logp + start : NULL,
                             .entropy = batch->entropy ? batch->entropy + start : NULL,
                             .mask = batch->mask + start,
                             .length = batch->lengths[i],
                             .advantage = batch->advantage[i],
                             .entropy_threshold = n.entropy_threshold};
        size_t bytes = (size_t)s.length * sizeof *coef;
        TRY(check_finite(&s, i));
        measure(&s);
        memset(coef + start, 0, bytes);
        if (ecoef) memset(ecoef + start, 0, bytes);
        if (s.n > 0) *loss += eval_terms(coef + start, metrics, &s, &n);
        if (s.n > 0 && s.entropy)
            *loss += eval_entropy(ecoef ? ecoef + start : NULL, metrics, &s, n.entropy_coef / n.entropy_tokens);
        metrics->clamped_exponents += s.clamped;
        start += (size_t)s.length;
    }
    return OK;
}
