/* Floor 4: log-probs of given completions, no gradient: reference model, evaluation, off-policy checks. */
#ifndef GRPO_SCORE_H
#define GRPO_SCORE_H

#include "run/session.h"

/* logp, entropy (HOST, flat over completion tokens) */
int score(struct session *s, float *logp, float *entropy, const struct groups *g, float temperature, int token_budget);
/* z (n, V) HOST = logits of one prompt; pictures may be NULL */
int score_logits(struct session *s, float *z, const struct ragged *prompt, const struct pictures *pictures);

#endif
