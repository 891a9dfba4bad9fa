/* A trainer's moments and gradients <-> float32 on the host, by tensor: what checkpoints hold beside the masters. */
#include <stdlib.h>

#include "base/base.h"
#include "base/float8.h"
#include "train/trainer.h"

const char *const moment_dtypes[MOMENT_DTYPES] = {
    [MOMENT_FLOAT32] = "float32", [MOMENT_BFLOAT16] = "bfloat16", [MOMENT_FLOAT8] = "float8"};

const char *const master_dtypes[MASTER_DTYPES] = {[MASTER_FLOAT32] = "float32", [MASTER_FLOAT24] = "float24"};

const char *moment_arena(enum moment_dtype dtype) {
    static const char *const arenas[MOMENT_DTYPES] = {[MOMENT_FLOAT32] = "AdamW moments (float32)",
                                                      [MOMENT_BFLOAT16] = "AdamW moments (bfloat16)",
                                                      [MOMENT_FLOAT8] = "AdamW moments (float8)"};
    return arenas[dtype];
}

/* Where a tensor's moments are in the backend's memory. exponents: of float8's blocks, (rows, float8_blocks(C)) */
struct place {
    enum moment_dtype dtype;
    uint32_t format;
    size_t n;
    int rows, C;
    void *numbers;
    uint8_t *exponents;
};

static struct place find_moments(const struct trainer *t, const struct param_group *g, enum trainer_state kind,
                                 const struct tensor *tensor) {
    const struct param *p = tensor->param;
    struct place q = {.dtype = param_moments(p, t->config.moments),
                      .format = kind == STATE_M ? FLOAT8_M : FLOAT8_V,
                      .n = tensor_size(tensor),
                      .rows = tensor->rows,
                      .C = p->C};
    char *at = kind == STATE_M ? g->moment1 : g->moment2;
    for (const struct param *before = g->weights->params; before < p; before++)
        if (g->at[before - g->weights->params] != NOT_TRAINED) at += param_moment_bytes(before, t->config.moments);
    q.numbers = at + (tensor_offset(tensor) - p->offset) * moment_element(q.dtype);
    if (q.dtype == MOMENT_FLOAT8)
        q.exponents = (uint8_t *)at + param_size(p) + (size_t)tensor->row * (size_t)float8_blocks(p->C);
    return q;
}

static size_t exponent_bytes(const struct place *q) {
    return q->exponents ? (size_t)q->rows * (size_t)float8_blocks(q->C) : 0;
}

static void widen_float8(float *host, const uint8_t *code, const uint8_t *exponent, const struct place *q) {
    for (int row = 0; row < q->rows; row++)
        for (int c = 0, n; c < q->C; c += n, host += n, code += n) {
            n = min_int(FLOAT8_BLOCK, q->C - c);
            float8_decode_block(host, code, *exponent++, n, q->format);
        }
}

static int narrow_float8(uint8_t *code, uint8_t *exponent, const float *host, const struct place *q) {
    static const uint32_t random[FLOAT8_BLOCK];        /* none */
    float decoded[FLOAT8_BLOCK];
    for (int row = 0; row < q->rows; row++)
        for (int c = 0, n; c < q->C; c += n, host += n, code += n) {
            n = min_int(FLOAT8_BLOCK, q->C - c);
            *exponent = float8_encode_block(code, host, random, 0, n, q->format);
            float8_decode_block(decoded, code, *exponent++, n, q->format);
            for (int i = 0; i < n; i++)
                if (float_bits(decoded[i]) != float_bits(host[i]))
                    return fail(E_CONFIG, "%g is no float8 number in its block, and the trainer's moments are float8",
                                (double)host[i]);
        }
    return OK;
}

static void widen_bf16(float *host, const bf16 *half, size_t n) {
    for (size_t i = 0; i < n; i++) host[i] = bf16_to_float(half[i]);
}

static int narrow_bf16(bf16 *half, const float *host, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (float_bits(host[i]) & 0xffff)
            return fail(E_CONFIG, "%g is no bfloat16 number, and the trainer's moments are bfloat16", (double)host[i]);
        half[i] = (bf16)(float_bits(host[i]) >> 16);
    }
    return OK;
}

static int get_moments(const struct device *d, float *host, const struct place *q) {
    size_t bytes = q->n * moment_element(q->dtype);
    if (q->dtype == MOMENT_FLOAT32) return device_download(d, host, q->numbers, bytes);
    void *staged = malloc(bytes + exponent_bytes(q));
    if (!staged) return fail(E_MEMORY, "no memory for %zu numbers", q->n);
    uint8_t *exponents = (uint8_t *)staged + bytes;
    int status = device_download(d, staged, q->numbers, bytes);
    if (!status && q->exponents) status = device_download(d, exponents, q->exponents, exponent_bytes(q));
    if (!status && q->exponents) widen_float8(host, staged, exponents, q);
    else if (!status) widen_bf16(host, staged, q->n);
    free(staged);
    return status;
}

/* d: NULL where it is only asked whether the numbers fit */
static int set_moments(const struct device *d, const struct place *q, const float *host) {
    size_t bytes = q->n * moment_element(q->dtype);
    if (q->dtype == MOMENT_FLOAT32) return d ? device_upload(d, q->numbers, host, bytes) : OK;
    void *staged = malloc(bytes + exponent_bytes(q));
    if (!staged) return fail(E_MEMORY, "no memory for %zu numbers", q->n);
    uint8_t *exponents = (uint8_t *)staged + bytes;
    int status = q->exponents ? narrow_float8(staged, exponents, host, q) : narrow_bf16(staged, host, q->n);
    if (!status && d) status = device_upload(d, q->numbers, staged, bytes);
    if (!status && d && q->exponents) status = device_upload(d, q->exponents, exponents, exponent_bytes(q));
    free(staged);
    return status;
}

static int not_trained(void) { return fail(E_CONFIG, "this tensor is not trained"); }

int trainer_get(struct trainer *t, float *host, enum trainer_state kind, const struct tensor *tensor) {
    const struct param_group *g = group_of(t, tensor);
    if (!g) return not_trained();
    const struct device *d = &g->weights->device;
    if (kind == STATE_GRADIENT)
        return device_download(d, host, g->grads + group_offset(g, tensor), tensor_size(tensor) * sizeof *host);
    struct place place = find_moments(t, g, kind, tensor);
    return get_moments(d, host, &place);
}

int trainer_set(struct trainer *t, enum trainer_state kind, const struct tensor *tensor, const float *host) {
    const struct param_group *g = group_of(t, tensor);
    if (!g) return not_trained();
    if (kind == STATE_GRADIENT) return fail(E_CONFIG, "gradients cannot be set");
    struct place place = find_moments(t, g, kind, tensor);
    return set_moments(&g->weights->device, &place, host);
}

int trainer_check(struct trainer *t, enum trainer_state kind, const struct tensor *tensor, const float *host) {
    const struct param_group *g = group_of(t, tensor);
    if (!g) return not_trained();
    struct place place = find_moments(t, g, kind, tensor);
    return set_moments(NULL, &place, host);
}
