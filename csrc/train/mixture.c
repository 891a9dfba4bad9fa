#include "train/mixture.h"

#include "base/base.h"

/* Device memory for all weights in float32 */
static int allocate(float **values, const struct weights *w) {
    size_t bytes = w->n_elements * sizeof **values;
    *values = device_alloc(&w->device, bytes);
    return *values ? OK : fail(E_MEMORY, "mixing a reference needs 2 x %.2f GB", (double)bytes / 1e9);
}

static int begin(struct mixture *m) {
    float *values;
    if (m->values) return OK;
    TRY(allocate(&values, m->weights));
    int status = weights_unpack(m->weights, values);
    if (status) device_release(&m->weights->device, values);
    else m->values = values;
    return status;
}

int mixture_move(struct mixture *m, const struct weights *other, float alpha) {
    struct weights *w = m->weights;
    const struct device *d = &w->device;
    if (other->device.ops != d->ops || !spec_equal(&w->spec, &other->spec))
        return fail(E_CONFIG, "only models of one shape on one device can be mixed");
    if (!(alpha >= 0 && alpha <= 1)) return fail(E_CONFIG, "alpha is %g, must be in 0..1", (double)alpha);
    float *source;
    TRY(allocate(&source, w));
    int status = begin(m);
    if (!status) status = weights_unpack(other, source);
    if (!status) status = op_lerp(d, m->values, source, alpha, w->n_elements);
    if (!status) status = weights_pack(w, m->values);
    device_release(d, source);
    return status;
}

int mixture_get(const struct mixture *m, const struct tensor *t, float *host) {
    return device_download(&m->weights->device, host, m->values + tensor_offset(t), tensor_size(t) * sizeof *host);
}

int mixture_set(struct mixture *m, const struct tensor *t, const float *host) {
    return device_upload(&m->weights->device, m->values + tensor_offset(t), host, tensor_size(t) * sizeof *host);
}

void mixture_free(struct mixture *m) {
    if (m->weights) device_release(&m->weights->device, m->values);
    *m = (struct mixture){0};
}
