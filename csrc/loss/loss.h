/* Floor 4: the GRPO family of losses on flat per-token arrays, with hand-written gradients. O(tokens), host, double.

   A loss is three choices: a per-token policy term (loss_type), an optional KL term, an aggregation. With
   rho = exp(logp - old_logp) per token, exp(mean over the sequence) ("sequence" level, GSPO) or exp(sum over it)
   ("sequence_product" level, RLOO), A = advantage:

     grpo dr_grpo dapo bnpo luspo   -min(min(rho, delta) A, clip(rho, 1 - epsilon, 1 + epsilon_high) A)
     cispo       -[min(rho, epsilon_high)] A logp,  [.] carries no gradient, epsilon_high is a cap and not a margin;
                 two-sided: -[clip(rho, 1 - epsilon, 1 + epsilon_high)] A logp
     sapo        -(4 / tau) sigmoid(tau (rho - 1)) A,  tau by the sign of A
     vespo       -[phi(w)] A logp,  phi = exp(lambda + k log w - lambda w),  w = exp(sum of log rho),
                 (k, lambda) by the sign of A
     gmpo        -A exp(mean of clipped log rho), clipped one-sidedly by the sign of A to -epsilon .. epsilon_high
     reinforce   -A logp

   delta > 1 + epsilon_high is INTELLECT-2's two-sided clip and, being the same function there, dual clip's c.
   Order: policy term, x off-policy mask, x top-entropy mask, + beta KL, aggregate, - entropy_coef mean entropy.

   Aggregation, N = loss-carrying tokens and B = completions of the WHOLE optimiser step (struct loss_normalizer):
     sequence-mean-token-mean  1/(B n_i)                      grpo sapo gmpo
     token-mean                1/N                            dapo bnpo cispo vespo reinforce
     sequence-mean-token-sum   1/B                            luspo
     fixed-length              1/(B max_completion_length)    dr_grpo
   A token's weight depends on its own sequence and the normaliser only, so any split of the step into micro-batches
   gives the same coefficients bit for bit. (bnpo elsewhere divides by the tokens of a micro-batch, and so depends on
   the split; here its one normaliser makes it dapo.)

   Exponents are clamped to +-LOSS_MAX_EXPONENT; where that bites the gradient is that of the clamped function, and
   metrics count it. */
#ifndef GRPO_LOSS_H
#define GRPO_LOSS_H

#include <stdint.h>

#define LOSS_MAX_EXPONENT 20.0

enum loss_type {
    LOSS_GRPO,
    LOSS_DR_GRPO,
    LOSS_DAPO,
    LOSS_BNPO,
    LOSS_CISPO,
    LOSS_SAPO,
    LOSS_LUSPO,
    LOSS_VESPO,
    LOSS_GMPO,
    LOSS_REINFORCE,
    LOSS_TYPES
};
enum loss_aggregation {
    SEQUENCE_MEAN_TOKEN_MEAN,
    TOKEN_MEAN,
    SEQUENCE_MEAN_TOKEN_SUM,
    FIXED_LENGTH,
    LOSS_AGGREGATIONS
};
enum loss_level { LEVEL_TOKEN, LEVEL_SEQUENCE, LEVEL_PRODUCT, LOSS_LEVELS };
enum kl_estimator { KL_K1, KL_K2, KL_K3, KL_ESTIMATORS };

/* the names that options use, in the order of the enums, NULL-terminated */
extern const char *const loss_type_names[], *const loss_aggregation_names[];
extern const char *const loss_level_names[], *const kl_estimator_names[];

/* Options; names and defaults as in csrc/python/py_loss.c. loss_config_finish() resolves what None left open. */
struct loss_config {
    int loss_type;                       /* enum loss_type */
    int aggregation;                     /* enum loss_aggregation; -1: what loss_type implies */
    int importance_sampling_level;       /* enum loss_level */
    int max_completion_length;           /* fixed-length's L */
    double epsilon, epsilon_high;        /* epsilon_high NAN: = epsilon */
    double delta;                        /* INFINITY: off */
    int cispo_two_sided;
    double beta;                         /* weight of the KL term; 0: ref_logp is not read */
    int kl_estimator;                    /* enum kl_estimator, x = logp - ref: k1 x, k2 x^2/2, k3 exp(-x) + x - 1 */
    int use_bias_correction_kl;          /* KL x rho, differentiated through rho */
    double sapo_temperature_pos, sapo_temperature_neg;
    double vespo_k_pos, vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg;
    double top_entropy_quantile;         /* < 1: policy term only where entropy >= normalizer.entropy_threshold */
    double off_policy_mask_threshold;    /* drops the policy term where A < 0 and mean(old_logp - logp) is above */
    double entropy_coef;                 /* static; when use_adaptive_entropy, the controller's first value */
    int use_adaptive_entropy;
    double entropy_coef_min, entropy_coef_max, entropy_coef_delta, entropy_target;
};
int loss_config_finish(struct loss_config *c);       /* fills in and checks; E_CONFIG names the option */

/* Of the whole optimiser step; counts below 1 count as 1. NAN = not given, for the last three. */
struct loss_normalizer {
    double tokens, sequences;
    double entropy_threshold;            /* needed when top_entropy_quantile < 1 */
    double entropy_tokens;               /* that reach the threshold: the bonus averages over them; else = tokens */
    double entropy_coef;                 /* applied this step; needed when use_adaptive_entropy, else config's */
};

/* Sums that micro-batches add to; what has count 0 does not apply and is not reported. */
struct loss_mean {
    double sum, count;
};
struct loss_metrics {
    struct loss_mean kl, entropy, clip_low, clip_high, cispo_clip, vespo_phi, off_policy_dropped, ratio;
    struct loss_mean logp_difference;    /* |logp - old_logp| */
    double clip_low_min, clip_high_max, ratio_min, ratio_max, logp_difference_max;
    double policy_loss;                  /* loss without the entropy bonus */
    double clamped_exponents;
};
void loss_metrics_init(struct loss_metrics *m);

/* What a loss is computed from. Arrays of tokens are flat over completions, lengths[i] tokens each; where mask is 0
   the others are not read. */
struct loss_batch {
    int n_sequences;
    const int32_t *lengths;              /* (n_sequences) */
    const float *advantage;              /* (n_sequences) */
    const float *logp, *old_logp;        /* (tokens) */
    const float *ref_logp, *entropy;     /* (tokens), or NULL */
    const uint8_t *mask;                 /* (tokens) 1: carries loss */
};

/* loss += L;  coef (tokens) = dL/dlogp;  ecoef (tokens) = dL/dentropy (NULL: no entropy bonus);  metrics +=.
   Where mask is 0 gradients are 0. A completion without loss-carrying tokens adds nothing. E_NONFINITE names the
   completion and the token. */
int loss_eval(double *loss, float *coef, float *ecoef, struct loss_metrics *metrics, const struct loss_config *c,
              const struct loss_normalizer *norm, const struct loss_batch *batch);

/* Adaptive entropy (Skywork-OR1): after a step of mean entropy `entropy`, moves *coef by entropy_coef_delta, up while
   entropy <= entropy_target and else down, and returns what the next step applies: *coef while it is that low, else 0.
   A run starts with *coef = entropy_coef and applies 0 in its first step. */
double loss_adapt_entropy(double *coef, double entropy, const struct loss_config *c);

#endif
