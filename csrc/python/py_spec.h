/* A Python Spec (grpo/model/families/spec.py) -> struct spec: the one parser of a network's shape. */
#ifndef GRPO_PY_SPEC_H
#define GRPO_PY_SPEC_H

#include "binding.h"

#include "net/spec.h"

/* 0, or -1 with an exception; spec_free() in both cases */
int spec_parse(struct spec *out, PyObject *object);
/* The tower beside a text: its attribute `vision`, which may be None */
int tower_parse(struct spec *out, int *has_tower, PyObject *object);

#endif
