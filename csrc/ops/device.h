/* How the floors above call a backend: op_x() for every operation of ops.def, device_x() for its memory. The only
   callers of a table's functions outside the backends. */
#ifndef GRPO_DEVICE_H
#define GRPO_DEVICE_H

#include "base/base.h"
#include "ops/ops.h"
#include "ops/profile.h"

/* -- memory and recording: see MEMORY and PLAN of ops.def ---------------------------------------------------------- */

static inline int device_open(struct device *d, const struct ops *ops) {
    *d = (struct device){.ops = ops};
    return ops->open(&d->ctx);
}
static inline void device_close(struct device *d) {
    if (d->ops) d->ops->close(d->ctx);
    *d = (struct device){0};
}
static inline int device_reserve(const struct device *d, const struct op_limits *need) {
    return d->ops->reserve(d->ctx, need);
}
static inline void *device_alloc(const struct device *d, size_t bytes) { return d->ops->alloc(d->ctx, bytes); }
static inline void device_release(const struct device *d, void *p) { d->ops->release(d->ctx, p); }
static inline int device_upload(const struct device *d, void *dst, const void *host, size_t bytes) {
    return d->ops->upload(d->ctx, dst, host, bytes);
}
static inline int device_download(const struct device *d, void *host, const void *src, size_t bytes) {
    return d->ops->download(d->ctx, host, src, bytes);
}
/* until all that was called is done */
static inline int device_wait(const struct device *d) {
    char nothing = 0;
    return device_download(d, &nothing, &nothing, 0);
}
static inline int device_replay(const struct device *d, const void *key, size_t bytes, int *done) {
    return d->ops->replay(d->ctx, key, bytes, done);
}
static inline int device_record_end(const struct device *d, int status) { return d->ops->record_end(d->ctx, status); }

/* -- operations: op_x(device, ...) is the backend's x(ctx, ...), counted while the profile is on ------------------- */

/* a parameter of ops.def as a call hands it on, behind a comma */
#define ARGUMENT(parameter) ARGUMENT_##parameter
#define ARGUMENT_OUT(type, name, ...) , name
#define ARGUMENT_ADD(type, name, ...) , name
#define ARGUMENT_MAYBE_ADD(type, name, ...) , name
#define ARGUMENT_UPDATE(type, name, ...) , name
#define ARGUMENT_HOST_OUT(type, name) , name
#define ARGUMENT_IN(type, name, ...) , name
#define ARGUMENT_MAYBE_IN(type, name, ...) , name
#define ARGUMENT_INDEX(name, ...) , name
#define ARGUMENT_MAYBE_INDEX(name, ...) , name
#define ARGUMENT_SEGMENTS(name, n) , name, n
#define ARGUMENT_STRUCT(type, name) , name
#define ARGUMENT_SIZE(name) , name
#define ARGUMENT_COUNT(name) , name
#define ARGUMENT_INTEGER(name) , name
#define ARGUMENT_NUMBER(name) , name
#define ARGUMENT_OPTION(name, usual) , name
#define ARGUMENT_CHOICE(type, name, end) , name

#define FLOPS(value) value
#define BYTES(value) value
#define MEMORY(result, name, parameters)
#define PLAN MEMORY
#define OP(name, formula, flops, bytes, ...)                                                \
    static inline int op_##name(const struct device *device EACH(PARAMETER, __VA_ARGS__)) { \
        if (!profile_on) return device->ops->name(device->ctx EACH(ARGUMENT, __VA_ARGS__)); \
        double began = clock_seconds();                                                     \
        int status = device->ops->name(device->ctx EACH(ARGUMENT, __VA_ARGS__));            \
        if (!status) status = device_wait(device);                                          \
        if (status) return status;                                                          \
        double seconds = clock_seconds() - began, real_size = device->ops->real_size;       \
        (void)real_size;                                                                    \
        profile_add(PROFILE_##name, seconds, (struct work){flops, bytes});                  \
        return OK;                                                                          \
    }
#define OP_BY_HAND OP
#include "ops/ops.def"
#undef FLOPS
#undef BYTES

#endif
