/* Loss options and results between Python and rl/loss.h. 0, or -1 with an exception that names the option. */
#ifndef GRPO_PY_LOSS_H
#define GRPO_PY_LOSS_H

#include "binding.h"
#include "loss/loss.h"

int loss_config_parse(struct loss_config *c, PyObject *dict);            /* what dict lacks: its default */
int loss_normalizer_parse(struct loss_normalizer *n, PyObject *dict);    /* tokens, sequences[, entropy_*] */
PyObject *loss_metrics_dict(const struct loss_metrics *m); /* name -> float, TRL's names; new reference */

#endif
