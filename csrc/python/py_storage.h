/* Names of how a trainer stores moments and masters, as arguments. */
#ifndef GRPO_PY_STORAGE_H
#define GRPO_PY_STORAGE_H

#include "ops/ops.h"

/* -1 with ValueError for a name that is none */
int parse_storage(enum moment_dtype *moments, enum master_dtype *masters, const char *moment_dtype,
                  const char *master_dtype);

#endif
