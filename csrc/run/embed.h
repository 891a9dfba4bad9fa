/* Floor 4: texts as vectors: the mean of the model's last hidden states (after the final norm) over a text's tokens. */
#ifndef GRPO_EMBED_H
#define GRPO_EMBED_H

#include "run/session.h"

/* out (n, d) HOST = mean over the rows of each of n texts, added in double in row order: a text's vector does not
   depend on what it is packed with. token_budget: rows run together; one text always fits. */
int embed(struct session *s, float *out, const struct ragged *texts, int token_budget);

#endif
