/* Names of how a trainer stores moments and masters, as arguments. */
#ifndef GRPO_PY_STORAGE_H
#define GRPO_PY_STORAGE_H

#include "train/trainer.h"

/* -1 with ValueError for a name that is none */
int parse_storage(enum moment_dtype *moments, enum master_dtype *masters, const char *moment_dtype,
                  const char *master_dtype);

/* Of the option train_vision; -1 with ValueError */
int parse_vision(enum vision_training *vision, const char *train_vision);

#endif
