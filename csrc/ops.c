/* Which backend a device name means. */
#include "ops.h"
#include "base/base.h"

int ops_find(const struct ops **out, const char *device) {
    if (!strcmp(device, "ref")) {
        *out = &ref_ops;
        return OK;
    }
    if (!strcmp(device, "cpu")) return cpu_ops_pick(out);
    return fail(E_DEVICE, "unknown device '%s': this build has 'cpu' and 'ref'", device);
}
