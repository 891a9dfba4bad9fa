/* Memory of a trainer, and the optimiser's step. */
#include <assert.h>
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

const char *const vision_trainings[VISION_TRAININGS] = {
    [VISION_FROZEN] = "none", [VISION_MERGERS] = "merger", [VISION_ALL] = "all"};

int is_trained(const struct spec *s, const struct param *p, enum vision_training vision) {
    if (!is_tower(s)) return 1;
    if (p->slot == P_pool_positions) return 0;         /* a table of sines, in files though it is */
    return vision == VISION_ALL || (vision == VISION_MERGERS && p->layer >= s->n_layers);
}

struct trained_sum {
    const struct spec *spec;
    enum vision_training vision;
    enum moment_dtype dtype;
    size_t elements, moment_bytes;
};
static int add_trained(void *arg, const struct param *p) {
    struct trained_sum *sum = arg;
    if (!is_trained(sum->spec, p, sum->vision)) return OK;
    sum->elements += padded_size(p);
    sum->moment_bytes += param_moment_bytes(p, sum->dtype);
    return OK;
}

struct trainer_sizes trainer_sizes(const struct ops *ops, const struct spec *s, enum vision_training vision,
                                   enum moment_dtype moments, enum master_dtype masters) {
    struct trained_sum sum = {.spec = s, .vision = vision, .dtype = moments};
    spec_visit(s, add_trained, &sum, NULL);
    size_t lower = (size_t)ops->real_size < sizeof(float) ? sum.elements * lower_element(masters) : 0;
    return (struct trainer_sizes){
        .grads = sum.elements * sizeof(float), .lower = lower, .moments = 2 * sum.moment_bytes};
}

size_t embed_row_bytes(const struct ops *ops, const struct spec *s) {
    return (size_t)s->d_model * (size_t)ops->real_size + sizeof(int32_t);
}

static int place_parameters(struct param_group *g, enum vision_training vision) {
    const struct weights *w = g->weights;
    g->at = malloc(((size_t)w->n_params + 1) * sizeof *g->at);
    if (!g->at) return fail(E_MEMORY, "no memory for a trainer");
    for (int i = 0; i < w->n_params; i++) {
        int trained = is_trained(&w->spec, &w->params[i], vision);
        g->at[i] = trained ? g->n_elements : NOT_TRAINED;
        g->n_elements += trained ? padded_size(&w->params[i]) : 0;
    }
    return OK;
}

static int open_group(struct trainer *t, struct weights *w, float rate) {
    const struct train_config *c = &t->config;
    struct param_group *g = &t->groups[t->n_groups];
    size_t first = t->n_groups ? t->groups[0].n_elements : 0;
    *g = (struct param_group){.weights = w, .first = first, .rate = rate, .version = w->version};
    t->n_groups++;
    TRY(place_parameters(g, c->vision));
    struct trainer_sizes size = trainer_sizes(w->device.ops, &w->spec, c->vision, c->moments, c->masters);
    int adamw = !c->gradients_only;
    g->grads = device_alloc(&w->device, size.grads);
    if (adamw && size.lower) g->lower = device_alloc(&w->device, size.lower);
    if (adamw) g->moment1 = device_alloc(&w->device, size.moments / 2);
    if (adamw) g->moment2 = device_alloc(&w->device, size.moments / 2);
    if (g->grads && (!adamw || ((g->lower || !size.lower) && g->moment1 && g->moment2))) return OK;
    return fail(E_MEMORY, "training needs %.2f GB for gradients, master weights and moments",
                (double)(size.grads + size.lower + size.moments) / 1e9);
}

static int check_config(const struct train_config *c) {
    if (c->token_budget < 1) return fail(E_CONFIG, "token_budget is %d, must be positive", c->token_budget);
    if (!(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1))
        return fail(E_CONFIG, "adam_beta1 and adam_beta2 (%g, %g) must be in [0, 1)", (double)c->beta1,
                    (double)c->beta2);
    if (!(c->eps >= 0 && isfinite(c->eps)))
        return fail(E_CONFIG, "adam_epsilon is %g, must be 0 or positive and finite", (double)c->eps);
    if (!isfinite(c->weight_decay))
        return fail(E_CONFIG, "weight_decay is %g, must be finite", (double)c->weight_decay);
    if (!(c->vision_rate >= 0 && isfinite(c->vision_rate)))
        return fail(E_CONFIG, "vision_rate is %g, must be 0 or positive and finite", (double)c->vision_rate);
    return OK;
}

int trainer_create(struct trainer **out, struct weights *w, struct weights *tower, struct workspace *workspace,
                   const struct train_config *config) {
    TRY(check_config(config));
    if (config->vision != VISION_FROZEN && !tower)
        return fail(E_CONFIG, "train_vision is '%s', and this model has no vision tower",
                    vision_trainings[config->vision]);
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return fail(E_MEMORY, "no memory for a trainer");
    *t = (struct trainer){.weights = w, .workspace = workspace, .config = *config};
    int status = open_group(t, w, 1);
    if (!status && config->vision != VISION_FROZEN) status = open_group(t, tower, config->vision_rate);
    if (status) trainer_free(t);
    else *out = t;
    return status;
}

void trainer_free(struct trainer *t) {
    if (!t) return;
    const struct device *d = &t->weights->device;
    for (int k = 0; k < t->n_groups; k++) {
        struct param_group *g = &t->groups[k];
        void *all[] = {g->grads, g->lower, g->moment1, g->moment2};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_release(d, all[i]);
        free(g->at);
    }
    device_release(d, t->embed_dx);
    device_release(d, t->embed_ids);
    tower_free(&t->tower);
    activations_free(&t->acts);
    batch_free(&t->batch);
    free(t);
}

/* -- the step ------------------------------------------------------------------------------------------------------ */

static int find_nonfinite(const struct param_group *g, double norm) {
    const struct weights *w = g->weights;
    for (int i = 0; i < w->n_params; i++) {
        const struct param *p = &w->params[i];
        double squares = 0;
        if (g->at[i] != NOT_TRAINED) TRY(op_sum_squares(&w->device, &squares, g->grads + g->at[i], param_size(p)));
        if (isfinite(squares)) continue;
        char name[TENSOR_NAME_MAX];
        tensor_name(name, sizeof name, &w->spec, p, 0);
        return fail(E_NONFINITE, "the gradient of %s is not finite; the weights were left as they were", name);
    }
    return fail(E_NONFINITE, "the gradient norm is %g; the weights were left as they were", norm);
}

/* Norm of the whole gradient; E_NONFINITE that names a parameter, and then the gradient is 0 */
static int gradient_norm(struct trainer *t, double *norm) {
    double squares = 0;
    for (int k = 0; k < t->n_groups; k++) {
        const struct param_group *g = &t->groups[k];
        double more;
        TRY(op_sum_squares(&g->weights->device, &more, g->grads, g->n_elements));
        squares += more;
        *norm = sqrt(squares);
        if (isfinite(*norm)) continue;
        int status = find_nonfinite(g, *norm);
        TRY(trainer_zero_grad(t));
        return status;
    }
    return OK;
}

static int update_group(const struct trainer *t, struct param_group *g, struct adamw p) {
    struct weights *w = g->weights;
    const struct train_config *c = &t->config;
    char *moment1 = g->moment1, *moment2 = g->moment2;
    p.lr *= g->rate;
    g->version = ++w->version;
    for (int i = 0; i < w->n_params; i++) {
        const struct param *q = &w->params[i];
        size_t at = g->at[i];
        if (at == NOT_TRAINED) continue;
        void *lower = g->lower ? (char *)g->lower + at * lower_element(c->masters) : NULL;
        p.weight_decay = q->C ? c->weight_decay : 0;
        p.first = g->first + at;
        p.moments = param_moments(q, c->moments);
        TRY(op_adamw(&w->device, q->w, lower, moment1, moment2, g->grads + at, q->O, q->C, &p));
        moment1 += param_moment_bytes(q, c->moments);
        moment2 += param_moment_bytes(q, c->moments);
    }
    return OK;
}

int trainer_step(struct trainer *t, double *norm, float learning_rate, float max_norm) {
    const struct train_config *c = &t->config;
    assert(t->groups[0].moment1 && t->groups[0].moment2);       /* not gradients_only */
    if (!isfinite(learning_rate)) return fail(E_CONFIG, "learning_rate is %g, must be finite", (double)learning_rate);
    for (int k = 0; k < t->n_groups; k++) TRY(follow_weights(t, &t->groups[k]));
    TRY(trainer_flush(t));
    TRY(gradient_norm(t, norm));
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
    for (int k = 0; k < t->n_groups; k++) TRY(update_group(t, &t->groups[k], p));
    return trainer_zero_grad(t);
}
