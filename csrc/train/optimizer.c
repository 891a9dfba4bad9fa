/* Memory of a trainer; the optimiser's step; master weights. */
#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/float8.h"
#include "train/trainer.h"

/* -- memory -------------------------------------------------------------------------------------------------------- */

size_t param_moment_bytes(const struct param *p, enum moment_dtype dtype) {
    dtype = param_moments(p, dtype);
    size_t exponents = dtype == MOMENT_FLOAT8 ? (size_t)p->O * (size_t)float8_blocks(p->C) : 0;
    return (param_size(p) * moment_element(dtype) + exponents + 31) & ~(size_t)31;
}

struct moment_sum {
    enum moment_dtype dtype;
    size_t bytes;
};
static int add_moments(void *arg, const struct param *p) {
    struct moment_sum *sum = arg;
    sum->bytes += param_moment_bytes(p, sum->dtype);
    return OK;
}

struct trainer_sizes trainer_sizes(const struct ops *ops, const struct spec *s, enum moment_dtype moments,
                                   enum master_dtype masters) {
    struct moment_sum sum = {.dtype = moments};
    size_t n;
    spec_visit(s, add_moments, &sum, &n);
    size_t lower = (size_t)ops->real_size < sizeof(float) ? n * lower_element(masters) : 0;
    return (struct trainer_sizes){.grads = n * sizeof(float), .lower = lower, .moments = 2 * sum.bytes};
}

size_t embed_row_bytes(const struct ops *ops, const struct spec *s) {
    return (size_t)s->d_model * (size_t)ops->real_size + sizeof(int32_t);
}

static int allocate(struct trainer *t) {
    const struct weights *w = t->weights;
    const struct train_config *c = &t->config;
    struct trainer_sizes size = trainer_sizes(w->device.ops, &w->spec, c->moments, c->masters);
    const struct {
        void **arena;
        size_t bytes;
    } arenas[] = {{(void **)&t->grads, size.grads},
                  {&t->lower, size.lower},
                  {&t->moment1, size.moments / 2},
                  {&t->moment2, size.moments / 2}};
    for (int i = 0; i < (c->gradients_only ? 1 : 4); i++) {
        if (!arenas[i].bytes) continue;
        *arenas[i].arena = device_alloc(&w->device, arenas[i].bytes);
        if (!*arenas[i].arena)
            return fail(E_MEMORY, "training needs %.2f GB for gradients, master weights and moments",
                        (double)(size.grads + size.lower + size.moments) / 1e9);
    }
    return OK;
}

int trainer_create(struct trainer **out, struct weights *w, struct workspace *workspace,
                   const struct train_config *config) {
    const struct train_config *c = config;
    if (c->token_budget < 1) return fail(E_CONFIG, "token_budget is %d, must be positive", c->token_budget);
    if (!(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1))
        return fail(E_CONFIG, "adam_beta1 and adam_beta2 (%g, %g) must be in [0, 1)", (double)c->beta1,
                    (double)c->beta2);
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return fail(E_MEMORY, "no memory for a trainer");
    *t = (struct trainer){.weights = w, .workspace = workspace, .config = *c, .version = w->version};
    int status = allocate(t);
    if (status) trainer_free(t);
    else *out = t;
    return status;
}

void trainer_free(struct trainer *t) {
    if (!t) return;
    void *all[] = {t->grads, t->lower, t->moment1, t->moment2, t->embed_dx, t->embed_ids};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_release(&t->weights->device, all[i]);
    activations_free(&t->acts);
    batch_free(&t->batch);
    free(t);
}

/* -- master weights ------------------------------------------------------------------------------------------------ */

/* Weights that somebody else has changed are what the masters begin from anew: exactly, without the bits that
   belonged to others. */
static int follow_weights(struct trainer *t) {
    const struct weights *w = t->weights;
    if (t->version != w->version && t->lower)
        TRY(op_zero(&w->device, t->lower, w->n_elements * lower_element(t->config.masters)));
    t->version = w->version;
    return OK;
}

/* Where a tensor's masters have the bits that its working weights lack */
static void *lower_of(const struct trainer *t, const struct tensor *tensor) {
    return (char *)t->lower + tensor_offset(tensor) * lower_element(t->config.masters);
}

int trainer_get_master(struct trainer *t, float *host, const struct tensor *tensor) {
    TRY(follow_weights(t));
    TRY(weights_get(t->weights, tensor, host));
    if (!t->lower) return OK;
    size_t n = tensor_size(tensor), bytes = n * lower_element(t->config.masters);
    void *lower = malloc(bytes);
    if (!lower) return fail(E_MEMORY, "no memory for %zu numbers", n);
    int status = device_download(&t->weights->device, lower, lower_of(t, tensor), bytes);
    for (size_t i = 0; i < n && !status; i++)
        host[i] =
            float_from_bits(join_bits((bf16)(float_bits(host[i]) >> 16), load_lower(lower, i, t->config.masters)));
    free(lower);
    return status;
}

static uint32_t master_bits_of(const struct trainer *t, float x) {
    return t->config.masters == MASTER_FLOAT24 ? nearest_float24(float_bits(x)) : float_bits(x);
}

/* The trainer's own bits of host, whose working weights have been set to upper (both HOST) */
static int set_lower(struct trainer *t, const struct tensor *tensor, const float *upper, const float *host,
                     void *staged) {
    size_t n = tensor_size(tensor);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = master_bits_of(t, host[i]);
        int joins =
            upper_of(bits) == (bf16)(float_bits(upper[i]) >> 16); /* masters of another width may round elsewhere */
        store_lower(staged, i, joins ? bits : 0, t->config.masters);
    }
    return device_upload(&t->weights->device, lower_of(t, tensor), staged, n * lower_element(t->config.masters));
}

static int set_piece(struct trainer *first, struct weights *w, const struct tensor *piece, const float *host,
                     float *upper, void *staged) {
    for (size_t i = 0; i < tensor_size(piece); i++) upper[i] = bf16_to_float(upper_of(master_bits_of(first, host[i])));
    TRY(weights_set(w, piece, upper));
    for (struct trainer *t = first; t; t = t->next) {
        TRY(set_lower(t, piece, upper, host, staged));
        t->version = w->version;
    }
    return OK;
}

int trainers_set_weights(struct trainer *first, struct weights *w, const struct tensor *tensor, const float *host) {
    for (struct trainer *t = first; t; t = t->next) TRY(follow_weights(t));
    if (!first || !first->lower) { /* masters, if any, are the working weights themselves */
        TRY(weights_set(w, tensor, host));
        for (struct trainer *t = first; t; t = t->next) t->version = w->version;
        return OK;
    }
    struct tensor piece = {0};
    tensor_next(&piece, tensor);
    float *upper = malloc(tensor_size(&piece) * (sizeof(float) + sizeof(uint16_t)));
    if (!upper) return fail(E_MEMORY, "no memory for %zu numbers", tensor_size(&piece));
    void *staged = upper + tensor_size(&piece);
    int status = OK;
    for (; !status && piece.rows > 0; host += tensor_size(&piece), tensor_next(&piece, tensor))
        status = set_piece(first, w, &piece, host, upper, staged);
    free(upper);
    return status;
}

int trainer_check_master(const struct trainer *t, const struct tensor *tensor, const float *host) {
    for (size_t i = 0; i < tensor_size(tensor) && t->config.masters == MASTER_FLOAT24; i++)
        if (float_bits(host[i]) & 0xff)
            return fail(E_CONFIG, "%.9g is no float24 number, and the trainer's master weights are float24",
                        (double)host[i]);
    return OK;
}

/* -- the step ------------------------------------------------------------------------------------------------------ */

static int find_nonfinite(struct trainer *t, double norm) {
    const struct weights *w = t->weights;
    for (int i = 0; i < w->n_params; i++) {
        const struct param *p = &w->params[i];
        double squares;
        TRY(op_sum_squares(&w->device, &squares, t->grads + p->offset, param_size(p)));
        if (isfinite(squares)) continue;
        char name[TENSOR_NAME_MAX];
        tensor_name(name, sizeof name, &w->spec, p, 0);
        return fail(E_NONFINITE, "the gradient of %s is not finite; the weights were left as they were", name);
    }
    return fail(E_NONFINITE, "the gradient norm is %g; the weights were left as they were", norm);
}

static int update_weights(struct trainer *t, struct adamw *p) {
    struct weights *w = t->weights;
    const struct train_config *c = &t->config;
    char *moment1 = t->moment1, *moment2 = t->moment2;
    for (int i = 0; i < w->n_params; i++) {
        const struct param *q = &w->params[i];
        void *lower = t->lower ? (char *)t->lower + q->offset * lower_element(c->masters) : NULL;
        p->weight_decay = q->C ? c->weight_decay : 0;
        p->first = q->offset;
        p->moments = param_moments(q, c->moments);
        TRY(op_adamw(&w->device, q->w, lower, moment1, moment2, t->grads + q->offset, q->O, q->C, p));
        moment1 += param_moment_bytes(q, c->moments);
        moment2 += param_moment_bytes(q, c->moments);
    }
    return OK;
}

int trainer_step(struct trainer *t, double *norm, float learning_rate, float max_norm) {
    struct weights *w = t->weights;
    const struct train_config *c = &t->config;
    double squares;
    TRY(follow_weights(t));
    TRY(trainer_flush(t));
    TRY(op_sum_squares(&w->device, &squares, t->grads, w->n_elements));
    *norm = sqrt(squares);
    if (!isfinite(*norm)) {
        int status = find_nonfinite(t, *norm);
        TRY(trainer_zero_grad(t));
        return status;
    }
    double step = (double)++t->steps_taken;
    struct adamw p = {
        .lr = learning_rate,
        .beta1 = c->beta1,
        .beta2 = c->beta2,
        .eps = c->eps,
        .grad_scale = max_norm > 0 ? fminf(1.0f, (float)(max_norm / (*norm + 1e-6))) : 1.0f,
        .correction1 = (float)(1 - pow((double)c->beta1, step)),
        .correction2 = (float)(1 - pow((double)c->beta2, step)),
        .masters = c->masters,
        .seed = c->seed,
        .step = (uint32_t)t->steps_taken,
    };
    t->version = ++w->version;
    TRY(update_weights(t, &p));
    return trainer_zero_grad(t);
}
