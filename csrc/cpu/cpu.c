#include "ops.h"
#include "base/base.h"

int cpu_ops_pick(const struct ops **out) {
    *out = NULL;
    return fail(E_DEVICE, "no cpu tier yet");
}
