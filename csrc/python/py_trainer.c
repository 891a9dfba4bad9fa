/* grpo._core.Trainer: gradients and optimiser of one Model. */
#include "py_model.h"

#include "py_loss.h"
#include "py_storage.h"

#include <stdlib.h>

typedef struct {
    PyObject_HEAD
    ModelObject *model;        /* a trainer's call is a call of its model */
    struct trainer *t;
} TrainerObject;

static PyObject *Trainer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model",     "adam_beta1",   "adam_beta2",   "adam_epsilon", "weight_decay", "token_budget",
                            "recompute", "moment_dtype", "master_dtype", "seed",         "train_vision", "vision_rate",
                            NULL};
    struct train_config c = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .token_budget = 1024, .vision_rate = 1};
    PyObject *model;
    const char *moment_dtype = "float32", *master_dtype = "float32", *train_vision = "none";
    unsigned long long seed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$ffffipssKsf:Trainer", names, &model, &c.beta1, &c.beta2, &c.eps,
                                     &c.weight_decay, &c.token_budget, &c.recompute, &moment_dtype, &master_dtype,
                                     &seed, &train_vision, &c.vision_rate) ||
        parse_storage(&c.moments, &c.masters, moment_dtype, master_dtype) || parse_vision(&c.vision, train_vision))
        return NULL;
    c.seed = seed;
    ModelObject *holder = model_arg(model);
    TrainerObject *self = holder ? (TrainerObject *)type->tp_alloc(type, 0) : NULL;
    if (!self) return NULL;
    self->model = (ModelObject *)Py_NewRef(holder);
    free_trainers(holder);
    int status = OK;
    RUN_ALONE(&holder->busy, status, trainer_create(&self->t, holder->weights, holder->tower, &holder->workspace, &c));
    if (status) Py_CLEAR(self);
    else {
        self->t->next = holder->trainers;
        holder->trainers = self->t;
    }
    return (PyObject *)self;
}

static void Trainer_dealloc(TrainerObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->t) {
        self->t->abandoned = 1;
        free_trainers(self->model);
    }
    Py_XDECREF(self->model);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- gradients ----------------------------------------------------------------------------------------------------- */

/* int64 (n) of the argument, which keeps them alive during the call; None: NULL. */
static const int64_t *stored_ids(PyObject *object, int n, int *failed) {
    if (!object || object == Py_None) return NULL;
    PyArrayObject *array = array_arg(object, NPY_INT64, 1, "stored");
    *failed = !array;
    if (array && PyArray_SIZE(array) != n) {
        PyErr_Format(PyExc_ValueError, "stored has %zd numbers, %d are needed", (Py_ssize_t)PyArray_SIZE(array), n);
        *failed = 1;
    }
    Py_XDECREF(array);
    return *failed ? NULL : DATA(int64_t, array);
}

PyDoc_STRVAR(
    accumulate_doc,
    "accumulate($self, prompts, completions, group, coef, *, images=None, entropy_coef=None, temperature=1.0, "
    "store=None, stored=None)\n--\n\n"
    "gradient += that of sum(coef * logprob + entropy_coef * entropy); returns (log-probabilities, entropies).");
static PyObject *Trainer_accumulate(TrainerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts",      "completions", "group", "coef",   "images",
                            "entropy_coef", "temperature", "store", "stored", NULL};
    struct group_arguments a = {0};
    PyObject *coef_arg, *ecoef_arg = NULL, *store_object = NULL, *stored_arg = NULL;
    float temperature = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$OOfOO:accumulate", names, &a.prompts, &a.completions,
                                     &a.group, &coef_arg, &a.images, &ecoef_arg, &temperature, &store_object,
                                     &stored_arg))
        return NULL;
    struct scored_groups s;
    struct coefficients c;
    struct store *store = NULL;
    int failed = scored_groups_begin(&s, &a, self->model->weights, self->model->tower) ||
                 coefficients_arg(&c, coef_arg, ecoef_arg, s.tokens) || store_arg(&store, store_object, self->model);
    const int64_t *ids = failed ? NULL : stored_ids(stored_arg, s.groups.completions.n, &failed);
    int status = failed ? -1 : OK;
    if (!status)
        RUN_ALONE(
            &self->model->busy, status,
            trainer_accumulate(self->t, FLOATS(s.logp), FLOATS(s.entropy), &s.groups, &c, temperature, store, ids));
    PyObject *result = status ? NULL : PyTuple_Pack(2, s.logp, s.entropy);
    scored_groups_end(&s);
    return result;
}

/* What loss_eval needs beyond logp and entropy; flat over completion tokens (advantage: one a completion). Adds to
   loss and metrics. */
struct loss_arguments {
    struct loss_config config;
    struct loss_normalizer normalizer;
    const float *old_logp, *ref_logp, *advantage;
    const uint8_t *mask;
    int32_t *lengths;                      /* (completions) */
    double loss;
    struct loss_metrics metrics;
};

/* The loss of a micro-batch: an objective of train/trainer.h */
static int evaluate_loss(void *arg, float *coef, float *ecoef, const float *logp, const float *entropy,
                         const struct groups *g, int first, int n) {
    struct loss_arguments *a = arg;
    int64_t at = g->completions.offset[first];
    struct loss_batch batch = {.n_sequences = n,
                               .lengths = a->lengths + first,
                               .advantage = a->advantage + first,
                               .logp = logp + at,
                               .old_logp = a->old_logp + at,
                               .ref_logp = a->ref_logp ? a->ref_logp + at : NULL,
                               .entropy = entropy + at,
                               .mask = a->mask + at};
    int status =
        loss_eval(&a->loss, coef + at, ecoef ? ecoef + at : NULL, &a->metrics, &a->config, &a->normalizer, &batch);
    if (status != E_NONFINITE || !first) return status;
    char said[512];                        /* loss_eval counts from the micro-batch's first completion */
    snprintf(said, sizeof said, "%s", fail_message());
    return fail(status, "counted from completion %d on: %s", first, said);
}

static int loss_arrays(struct loss_arguments *a, const struct scored_groups *s, PyObject *old, PyObject *ref,
                       PyObject *advantages, PyObject *mask) {
    int failed = 0;
    PyArrayObject *array = array_arg(mask, NPY_UINT8, 1, "mask");
    if (!array) return -1;
    a->mask = DATA(uint8_t, array);
    Py_DECREF(array);                      /* the argument keeps it alive during the call */
    if (PyArray_SIZE(array) != s->tokens)
        return PyErr_Format(PyExc_ValueError, "mask has %zd entries for %zd tokens", (Py_ssize_t)PyArray_SIZE(array),
                            (Py_ssize_t)s->tokens),
               -1;
    a->old_logp = floats_arg(old, s->tokens, "old_logps", 0, &failed);
    if (!failed) a->ref_logp = floats_arg(ref, s->tokens, "ref_logps", 1, &failed);
    if (!failed) a->advantage = floats_arg(advantages, s->groups.completions.n, "advantages", 0, &failed);
    if (failed) return -1;
    a->lengths = malloc(((size_t)s->groups.completions.n + 1) * sizeof *a->lengths);
    if (!a->lengths) return PyErr_NoMemory(), -1;
    for (int i = 0; i < s->groups.completions.n; i++) a->lengths[i] = ragged_length(&s->groups.completions, i);
    return 0;
}

PyDoc_STRVAR(accumulate_loss_doc,
             "accumulate_loss($self, prompts, completions, group, *, old_logps, advantages, mask, ref_logps, loss, "
             "normalizer, images=None, temperature=1.0)\n--\n\n"
             "Forward, grpo_loss, backward; returns (loss, metrics, log-probabilities, entropies).");
static PyObject *Trainer_accumulate_loss(TrainerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts",   "completions", "group",      "old_logps", "advantages",  "mask",
                            "ref_logps", "loss",        "normalizer", "images",    "temperature", NULL};
    struct group_arguments list = {0};
    PyObject *old = NULL, *advantages = NULL, *mask = NULL, *ref = NULL, *loss = NULL, *normalizer = NULL,
             *result = NULL;
    float temperature = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$OOOOOOOf:accumulate_loss", names, &list.prompts,
                                     &list.completions, &list.group, &old, &advantages, &mask, &ref, &loss, &normalizer,
                                     &list.images, &temperature))
        return NULL;
    if (!old || !advantages || !mask || !ref || !loss || !normalizer)
        return PyErr_Format(PyExc_TypeError,
                            "accumulate_loss() needs old_logps, advantages, mask, ref_logps, loss and normalizer");
    struct loss_arguments a = {0};
    struct scored_groups s = {0};
    loss_metrics_init(&a.metrics);
    int status = loss_config_parse(&a.config, loss) || loss_normalizer_parse(&a.normalizer, normalizer) ||
                         scored_groups_begin(&s, &list, self->model->weights, self->model->tower) ||
                         loss_arrays(&a, &s, old, ref, advantages, mask)
                     ? -1
                     : OK;
    if (!status) {
        struct objective o = {evaluate_loss, &a, a.config.entropy_coef != 0 || a.config.use_adaptive_entropy};
        RUN_ALONE(&self->model->busy, status,
                  trainer_accumulate_objective(self->t, FLOATS(s.logp), FLOATS(s.entropy), &s.groups, &o, temperature));
    }
    if (!status) result = Py_BuildValue("(dNOO)", a.loss, loss_metrics_dict(&a.metrics), s.logp, s.entropy);
    free(a.lengths);
    scored_groups_end(&s);
    return result;
}

PyDoc_STRVAR(step_doc, "step($self, learning_rate, max_grad_norm=0.0)\n--\n\n"
                       "Clip, AdamW, gradient = 0; returns the gradient norm before clipping.");
static PyObject *Trainer_step(TrainerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"learning_rate", "max_grad_norm", NULL};
    float learning_rate, max_norm = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "f|f:step", names, &learning_rate, &max_norm)) return NULL;
    double norm = 0;
    int status = OK;
    RUN_ALONE(&self->model->busy, status, trainer_step(self->t, &norm, learning_rate, max_norm));
    return status ? NULL : PyFloat_FromDouble(norm);
}

PyDoc_STRVAR(zero_grad_doc, "zero_grad($self, /)\n--\n\ngradient = 0.");
static PyObject *Trainer_zero_grad(TrainerObject *self, PyObject *unused) {
    (void)unused;
    int status = OK;
    RUN_ALONE(&self->model->busy, status, trainer_zero_grad(self->t));
    if (status) return NULL;
    Py_RETURN_NONE;
}

/* -- state --------------------------------------------------------------------------------------------------------- */

/* A tensor that the trainer trains; -1 with ConfigError for any other */
static int find_trained(struct tensor *t, struct weights **w, const TrainerObject *self, const char *name) {
    if (find_tensor(t, w, self->model, name)) return -1;
    if (group_of(self->t, t)) return 0;
    return raise_status(fail(E_CONFIG, "%.200s is not trained (train_vision is '%s')", name,
                             vision_trainings[self->t->config.vision])),
           -1;
}

/* masters: the kind is 'master', which is not one of trainer_get's */
static int parse_state(int *masters, enum trainer_state *kind, struct tensor *t, struct weights **w,
                       const TrainerObject *self, const char *kind_name, const char *name) {
    *masters = !strcmp(kind_name, "master");
    *kind = !strcmp(kind_name, "v") ? STATE_V : STATE_M;
    if (!*masters && strcmp(kind_name, "m") && strcmp(kind_name, "v"))
        return PyErr_Format(PyExc_ValueError, "kind is '%s', must be 'master', 'm' or 'v'", kind_name), -1;
    return find_trained(t, w, self, name);
}

PyDoc_STRVAR(gradient_doc, "gradient($self, name, /)\n--\n\nThe gradient accumulated so far, float32.");
static PyObject *Trainer_gradient(TrainerObject *self, PyObject *arg) {
    struct tensor t;
    struct weights *w;
    const char *name = string_arg(arg, "name");
    if (!name || find_trained(&t, &w, self, name)) return NULL;
    PyObject *array = tensor_array(&t, w);
    if (!array) return NULL;
    int status = OK;
    RUN_ALONE(&self->model->busy, status, trainer_flush(self->t));
    if (!status) RUN_ALONE(&self->model->busy, status, trainer_get(self->t, FLOATS(array), STATE_GRADIENT, &t));
    if (status) Py_CLEAR(array);
    return array;
}

PyDoc_STRVAR(
    get_state_doc,
    "get_state($self, kind, name, /)\n--\n\nkind: 'master', 'm' or 'v'; float32, whatever they are stored as.");
static PyObject *Trainer_get_state(TrainerObject *self, PyObject *args) {
    const char *kind_name, *name;
    enum trainer_state kind;
    struct tensor t;
    struct weights *w;
    int masters, status = OK;
    if (!PyArg_ParseTuple(args, "ss:get_state", &kind_name, &name) ||
        parse_state(&masters, &kind, &t, &w, self, kind_name, name))
        return NULL;
    PyObject *array = tensor_array(&t, w);
    if (!array) return NULL;
    RUN_ALONE(&self->model->busy, status,
              masters ? trainer_get_master(self->t, FLOATS(array), &t) : trainer_get(self->t, FLOATS(array), kind, &t));
    if (status) Py_CLEAR(array);
    return array;
}

static int set_masters(TrainerObject *self, struct weights *w, const struct tensor *t, const float *host) {
    TRY(trainer_check_master(self->t, t, host));
    return trainers_set_weights(self->model->trainers, w, t, host);
}

static int check_state(TrainerObject *self, int masters, enum trainer_state kind, const struct tensor *t,
                       const float *host) {
    return masters ? trainer_check_master(self->t, t, host) : trainer_check(self->t, kind, t, host);
}

/* set_state(kind, name, array), or no more than its checks. */
static PyObject *take_state(TrainerObject *self, PyObject *args, int only_check) {
    const char *kind_name, *name;
    enum trainer_state kind;
    PyObject *object;
    struct tensor t;
    struct weights *w;
    int masters, status = OK;
    if (!PyArg_ParseTuple(args, only_check ? "ssO:check_state" : "ssO:set_state", &kind_name, &name, &object) ||
        parse_state(&masters, &kind, &t, &w, self, kind_name, name))
        return NULL;
    PyArrayObject *array = array_arg(object, NPY_FLOAT32, -1, name);
    if (!array) return NULL;
    const float *host = DATA(float, array);
    int fits = shape_fits(array, &t, w, name);
    if (!fits) status = -1;
    else if (only_check) RUN_ALONE(&self->model->busy, status, check_state(self, masters, kind, &t, host));
    else
        RUN_ALONE(&self->model->busy, status,
                  masters ? set_masters(self, w, &t, host) : trainer_set(self->t, kind, &t, host));
    Py_DECREF(array);
    if (status) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_state_doc,
             "set_state($self, kind, name, array, /)\n--\n\n"
             "kind: 'master' (the working weight follows), 'm' or 'v' (ConfigError for numbers that master_dtype or "
             "moment_dtype\n"
             "cannot hold).");
static PyObject *Trainer_set_state(TrainerObject *self, PyObject *args) { return take_state(self, args, 0); }

PyDoc_STRVAR(check_state_doc, "check_state($self, kind, name, array, /)\n--\n\n"
                              "Raises what set_state would; nothing moves.");
static PyObject *Trainer_check_state(TrainerObject *self, PyObject *args) { return take_state(self, args, 1); }

PyDoc_STRVAR(trainer_plan_doc, "plan($self, /)\n--\n\n[(arena, bytes)] of what is held now.");
static PyObject *Trainer_plan(TrainerObject *self, PyObject *unused) {
    (void)unused;
    const struct trainer *t = self->t;
    const struct ops *ops = self->model->device.ops;
    const struct weights *tower = self->model->tower;
    struct trainer_sizes all = {0};
    size_t weights = weights_bytes(ops, &t->weights->spec) + (tower ? weights_bytes(ops, &tower->spec) : 0);
    size_t vectors = (size_t)t->batch.vectors_max * vector_bytes(ops, &t->weights->spec);
    for (int k = 0; k < t->n_groups; k++) {
        const struct train_config *c = &t->config;
        struct trainer_sizes one = trainer_sizes(ops, &t->groups[k].weights->spec, c->vision, c->moments, c->masters);
        all = (struct trainer_sizes){all.grads + one.grads, all.lower + one.lower, all.moments + one.moments};
    }
    return Py_BuildValue("[(sn)(sn)(sn)(sn)(sn)(sn)(sn)(sn)]", "weights", (Py_ssize_t)weights, "gradients (float32)",
                         (Py_ssize_t)all.grads, "master bits beyond bfloat16", (Py_ssize_t)all.lower,
                         moment_arena(t->config.moments), (Py_ssize_t)all.moments, "gradients of embedded tokens",
                         (Py_ssize_t)((size_t)t->embed_max * embed_row_bytes(ops, &t->weights->spec)),
                         "features of a micro-batch", (Py_ssize_t)vectors, "activations", (Py_ssize_t)t->acts.bytes,
                         "activations of the tower", (Py_ssize_t)t->tower.bytes);
}

static PyObject *Trainer_get_moment_dtype(TrainerObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(moment_dtypes[self->t->config.moments]);
}
static PyObject *Trainer_get_master_dtype(TrainerObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(master_dtypes[self->t->config.masters]);
}
static PyObject *Trainer_get_steps(TrainerObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(self->t->steps_taken);
}
static int Trainer_set_steps(TrainerObject *self, PyObject *value, void *unused) {
    (void)unused;
    long long steps = value ? PyLong_AsLongLong(value) : -1;
    if (PyErr_Occurred()) return -1;
    if (steps < 0) return PyErr_SetString(PyExc_ValueError, "steps_taken must be a number >= 0"), -1;
    self->t->steps_taken = steps;
    return 0;
}

PyDoc_STRVAR(trained_doc, "trained($self, /)\n--\n\n[(Hugging Face name, shape)] of every tensor that it trains.");
static PyObject *Trainer_trained(TrainerObject *self, PyObject *unused) {
    (void)unused;
    PyObject *list = PyList_New(0);
    for (int k = 0; list && k < self->t->n_groups; k++)
        if (list_tensors(list, self->t->groups[k].weights, self->t->groups[k].at)) Py_CLEAR(list);
    return list;
}

static PyMethodDef methods[] = {
    {"trained", (PyCFunction)Trainer_trained, METH_NOARGS, trained_doc},
    {"accumulate", (PyCFunction)(void *)Trainer_accumulate, METH_VARARGS | METH_KEYWORDS, accumulate_doc},
    {"accumulate_loss", (PyCFunction)(void *)Trainer_accumulate_loss, METH_VARARGS | METH_KEYWORDS,
     accumulate_loss_doc},
    {"step", (PyCFunction)(void *)Trainer_step, METH_VARARGS | METH_KEYWORDS, step_doc},
    {"zero_grad", (PyCFunction)Trainer_zero_grad, METH_NOARGS, zero_grad_doc},
    {"gradient", (PyCFunction)Trainer_gradient, METH_O, gradient_doc},
    {"get_state", (PyCFunction)Trainer_get_state, METH_VARARGS, get_state_doc},
    {"set_state", (PyCFunction)Trainer_set_state, METH_VARARGS, set_state_doc},
    {"check_state", (PyCFunction)Trainer_check_state, METH_VARARGS, check_state_doc},
    {"plan", (PyCFunction)Trainer_plan, METH_NOARGS, trainer_plan_doc},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef getset[] = {
    {"steps_taken", (getter)Trainer_get_steps, (setter)Trainer_set_steps, "AdamW's t", NULL},
    {"moment_dtype", (getter)Trainer_get_moment_dtype, NULL,
     "Storage of the moments: 'float32', 'bfloat16' or 'float8'", NULL},
    {"master_dtype", (getter)Trainer_get_master_dtype, NULL, "Storage of the master weights: 'float32' or 'float24'",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
PyDoc_STRVAR(
    trainer_doc,
    "Trainer(model, *, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-08, weight_decay=0.0, token_budget=1024, "
    "recompute=False, moment_dtype='float32', master_dtype='float32', seed=0, train_vision='none', vision_rate=1.0)"
    "\n--\n\n"
    "Gradients, master weights and AdamW moments of one Model.");
static PyType_Slot slots[] = {
    {Py_tp_new, Trainer_new}, {Py_tp_dealloc, Trainer_dealloc}, {Py_tp_methods, methods},
    {Py_tp_getset, getset},   {Py_tp_doc, (void *)trainer_doc}, {0, NULL},
};
static PyType_Spec spec = {"grpo._core.Trainer", sizeof(TrainerObject), 0, Py_TPFLAGS_DEFAULT, slots};

int add_trainer(PyObject *module) {
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    int failed = type ? PyModule_AddType(module, type) : -1;
    Py_XDECREF(type);
    return failed;
}
