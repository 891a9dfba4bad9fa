#include "ops.h"

const struct ops ref_ops = {.name = "ref", .tier = "", .real_size = 4};
