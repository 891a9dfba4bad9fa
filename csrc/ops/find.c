/* Which backend a device name means. */
#include "ops/ops.h"
#include "base/base.h"
#include "ops/plugin.h"

int ops_find(const struct ops **out, const char *device) {
    if (!strcmp(device, "ref")) {
        *out = &ref_ops;
        return OK;
    }
    if (!strcmp(device, "cpu")) return cpu_ops_pick(out);
    if (!strcmp(device, "cuda")) {
        const struct plugin *plugin;
        TRY(plugin_find(&plugin));
        *out = plugin->ops;
        return OK;
    }
    if (!strncmp(device, "cuda:", 5))
        return fail(E_DEVICE, "device '%.20s': 'cuda' is the first GPU that CUDA_VISIBLE_DEVICES shows", device);
    return fail(E_DEVICE, "unknown device '%.40s': there are 'cpu', 'cuda' and 'ref'", device);
}
