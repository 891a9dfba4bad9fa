/* grpo._core.Trainer: gradients and optimiser of one Model; and plan(), what a run will hold. */
#include "binding.h"

#include "py_loss.h"
#include "rl/plan.h"
#include "rl/train.h"

typedef struct {
    PyObject_HEAD
    PyObject *model;
    int *busy;                 /* the model's: a trainer's call is a call of its model */
    struct trainer *t;
} TrainerObject;

#define RUN(self, status, call)                                                                                        \
    do {                                                                                                               \
        if (busy_enter((self)->busy)) {                                                                                \
            status = -1;                                                                                               \
            break;                                                                                                     \
        }                                                                                                              \
        Py_BEGIN_ALLOW_THREADS                                                                                         \
        status = (call);                                                                                               \
        Py_END_ALLOW_THREADS                                                                                           \
        *(self)->busy = 0;                                                                                             \
        if (status) raise_status(status);                                                                              \
    } while (0)

/* The place of `name` among n names; -1 with ValueError */
static int parse_dtype(const char *option, const char *name, const char *const *names, int n) {
    for (int i = 0; i < n; i++)
        if (!strcmp(name, names[i])) return i;
    char known[80] = "";
    for (int i = 0; i < n; i++) sprintf(known + strlen(known), "%s'%s'", i == 0 ? "" : i < n - 1 ? ", " : " or ", names[i]);
    PyErr_Format(PyExc_ValueError, "%s is '%.40s', must be %s", option, name, known);
    return -1;
}

static int parse_storage(enum moment_dtype *moments, enum master_dtype *masters, const char *moment_dtype, const char *master_dtype) {
    int moment = parse_dtype("moment_dtype", moment_dtype, moment_dtypes, MOMENT_DTYPES);
    int master = moment < 0 ? -1 : parse_dtype("master_dtype", master_dtype, master_dtypes, MASTER_DTYPES);
    if (master < 0) return -1;
    *moments = (enum moment_dtype)moment;
    *masters = (enum master_dtype)master;
    return 0;
}

static PyObject *Trainer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "token_budget", "recompute",
                            "moment_dtype", "master_dtype", "seed", NULL};
    struct train_config c = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .token_budget = 1024};
    PyObject *model;
    const char *moment_dtype = "float32", *master_dtype = "float32";
    unsigned long long seed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$ffffipssK:Trainer", names, &model, &c.beta1, &c.beta2, &c.eps, &c.weight_decay,
                                     &c.token_budget, &c.recompute, &moment_dtype, &master_dtype, &seed) ||
        parse_storage(&c.moments, &c.masters, moment_dtype, master_dtype))
        return NULL;
    c.seed = seed;
    int *busy;
    struct model *m = model_of(model, &busy);
    TrainerObject *self = m ? (TrainerObject *)type->tp_alloc(type, 0) : NULL;
    if (!self) return NULL;
    self->model = Py_NewRef(model);
    self->busy = busy;
    int status = OK;
    RUN(self, status, trainer_create(&self->t, m, &c, 1));
    if (status) Py_CLEAR(self);
    return (PyObject *)self;
}

static void Trainer_dealloc(TrainerObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    trainer_free(self->t);
    Py_XDECREF(self->model);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- gradients ------------------------------------------------------------------------------------------------------- */

/* What both accumulate calls share: the groups, and arrays for the log-probs and entropies seen on the way. */
struct pass { struct groups g; struct ragged_owner prompts, completions; PyObject *logp, *entropy; npy_intp tokens; };

static int pass_begin(struct pass *p, PyObject *prompts, PyObject *completions, PyObject *group) {
    *p = (struct pass){0};
    if (groups_from_args(&p->g, &p->prompts, &p->completions, prompts, completions, group)) return -1;
    p->tokens = p->g.completions.offset[p->g.completions.n];
    p->logp = array_new(NPY_FLOAT32, 1, &p->tokens);
    p->entropy = array_new(NPY_FLOAT32, 1, &p->tokens);
    return p->logp && p->entropy ? 0 : -1;
}
static void pass_end(struct pass *p) {
    ragged_release(&p->prompts);
    ragged_release(&p->completions);
    Py_XDECREF(p->logp);
    Py_XDECREF(p->entropy);
}
#define FLOATS(object) DATA(float, (PyArrayObject *)(object))

/* int64 (n) of the argument, which keeps them alive during the call; None: NULL. */
static const int64_t *kept_ids(PyObject *object, int n, int *failed) {
    if (!object || object == Py_None) return NULL;
    PyArrayObject *array = array_arg(object, NPY_INT64, 1, "kept");
    *failed = !array;
    if (array && PyArray_SIZE(array) != n) {
        PyErr_Format(PyExc_ValueError, "kept has %zd numbers, %d are needed", (Py_ssize_t)PyArray_SIZE(array), n);
        *failed = 1;
    }
    Py_XDECREF(array);
    return *failed ? NULL : DATA(int64_t, array);
}

PyDoc_STRVAR(accumulate_doc, "accumulate($self, prompts, completions, group, coef, *, entropy_coef=None, temperature=1.0, kept=None)\n--\n\n"
                             "gradient += that of sum(coef * logprob + entropy_coef * entropy); returns (log-probabilities, entropies).");
static PyObject *Trainer_accumulate(TrainerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts", "completions", "group", "coef", "entropy_coef", "temperature", "kept", NULL};
    PyObject *prompts, *completions, *group, *coef_arg, *ecoef_arg = NULL, *kept_arg = NULL;
    float temperature = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$OfO:accumulate", names, &prompts, &completions, &group, &coef_arg, &ecoef_arg,
                                     &temperature, &kept_arg))
        return NULL;
    struct pass p;
    int status = pass_begin(&p, prompts, completions, group), failed = 0;
    if (!status) {
        const float *coef = floats_arg(coef_arg, p.tokens, "coef", 0, &failed);
        const float *ecoef = failed ? NULL : floats_arg(ecoef_arg, p.tokens, "entropy_coef", 1, &failed);
        const int64_t *kept = failed ? NULL : kept_ids(kept_arg, p.g.completions.n, &failed);
        status = failed;
        if (!status)
            RUN(self, status, trainer_accumulate(self->t, FLOATS(p.logp), FLOATS(p.entropy), &p.g, coef, ecoef, temperature,
                                                 kept));
    }
    PyObject *result = status ? NULL : PyTuple_Pack(2, p.logp, p.entropy);
    pass_end(&p);
    return result;
}

PyDoc_STRVAR(accumulate_loss_doc, "accumulate_loss($self, prompts, completions, group, *, old_logps, advantages, mask, ref_logps, loss, "
                                  "normalizer, temperature=1.0)\n--\n\n"
                                  "Forward, grpo_loss, backward; returns (loss, metrics, log-probabilities, entropies).");
static PyObject *Trainer_accumulate_loss(TrainerObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts", "completions", "group", "old_logps", "advantages", "mask", "ref_logps", "loss", "normalizer",
                            "temperature", NULL};
    PyObject *prompts, *completions, *group, *old = NULL, *advantages = NULL, *mask_arg = NULL, *ref = NULL, *loss_dict = NULL,
             *normalizer_dict = NULL, *result = NULL;
    float temperature = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$OOOOOOf:accumulate_loss", names, &prompts, &completions, &group, &old, &advantages,
                                     &mask_arg, &ref, &loss_dict, &normalizer_dict, &temperature))
        return NULL;
    if (!old || !advantages || !mask_arg || !ref || !loss_dict || !normalizer_dict)
        return PyErr_Format(PyExc_TypeError, "accumulate_loss() needs old_logps, advantages, mask, ref_logps, loss and normalizer");
    struct loss_config config;
    struct loss_normalizer normalizer;
    if (loss_config_parse(&config, loss_dict) || loss_normalizer_parse(&normalizer, normalizer_dict)) return NULL;
    struct pass p;
    int status = pass_begin(&p, prompts, completions, group), failed = 0;
    PyArrayObject *mask = status ? NULL : array_arg(mask_arg, NPY_UINT8, 1, "mask");
    if (mask && PyArray_SIZE(mask) != p.tokens) {
        PyErr_Format(PyExc_ValueError, "mask has %zd entries for %zd tokens", (Py_ssize_t)PyArray_SIZE(mask), (Py_ssize_t)p.tokens);
        failed = 1;
    }
    if (mask && !failed) {
        struct loss_inputs in = {.config = &config, .normalizer = &normalizer, .mask = DATA(uint8_t, mask)};
        in.old_logp = floats_arg(old, p.tokens, "old_logps", 0, &failed);
        if (!failed) in.ref_logp = floats_arg(ref, p.tokens, "ref_logps", 1, &failed);
        if (!failed) in.advantage = floats_arg(advantages, p.g.completions.n, "advantages", 0, &failed);
        double loss = 0;
        struct loss_metrics metrics;
        loss_metrics_init(&metrics);
        if (!failed) {
            RUN(self, status, trainer_accumulate_loss(self->t, &loss, &metrics, FLOATS(p.logp), FLOATS(p.entropy), &p.g, &in, temperature));
            if (!status) result = Py_BuildValue("(dNOO)", loss, loss_metrics_dict(&metrics), p.logp, p.entropy);
        }
    }
    Py_XDECREF(mask);
    pass_end(&p);
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
    RUN(self, status, trainer_step(self->t, &norm, learning_rate, max_norm));
    return status ? NULL : PyFloat_FromDouble(norm);
}

PyDoc_STRVAR(zero_grad_doc, "zero_grad($self, /)\n--\n\ngradient = 0.");
static PyObject *Trainer_zero_grad(TrainerObject *self, PyObject *unused) {
    (void)unused;
    int status = OK;
    RUN(self, status, trainer_zero_grad(self->t));
    if (status) return NULL;
    Py_RETURN_NONE;
}

/* -- state ------------------------------------------------------------------------------------------------------------- */

static int parse_state(enum trainer_state *kind, struct tensor *t, const TrainerObject *self, const char *kind_name, const char *name) {
    static const char *const kinds[] = {[STATE_MASTER] = "master", [STATE_M] = "m", [STATE_V] = "v"};
    int k = 0;
    while (k < 3 && strcmp(kind_name, kinds[k])) k++;
    if (k == 3) return PyErr_Format(PyExc_ValueError, "kind is '%s', must be 'master', 'm' or 'v'", kind_name), -1;
    *kind = (enum trainer_state)k;
    int status = model_find(t, self->t->m, name);
    if (status) raise_status(status);
    return status;
}

static PyObject *read_state(TrainerObject *self, enum trainer_state kind, const struct tensor *t) {
    npy_intp shape[] = {t->rows, t->param->C};
    PyObject *array = array_new(NPY_FLOAT32, t->param->C ? 2 : 1, shape);
    if (!array) return NULL;
    int status = OK;
    RUN(self, status, trainer_get(self->t, FLOATS(array), kind, t));
    if (status) Py_CLEAR(array);
    return array;
}

PyDoc_STRVAR(gradient_doc, "gradient($self, name, /)\n--\n\nThe gradient accumulated so far, float32.");
static PyObject *Trainer_gradient(TrainerObject *self, PyObject *arg) {
    struct tensor t;
    const char *name = string_arg(arg, "name");
    if (!name) return NULL;
    int status = model_find(&t, self->t->m, name);
    if (status) return raise_status(status);
    RUN(self, status, trainer_flush(self->t));
    return status ? NULL : read_state(self, STATE_GRADIENT, &t);
}

PyDoc_STRVAR(get_state_doc, "get_state($self, kind, name, /)\n--\n\nkind: 'master', 'm' or 'v'; float32, whatever they are stored as.");
static PyObject *Trainer_get_state(TrainerObject *self, PyObject *args) {
    const char *kind_name, *name;
    enum trainer_state kind;
    struct tensor t;
    if (!PyArg_ParseTuple(args, "ss:get_state", &kind_name, &name) || parse_state(&kind, &t, self, kind_name, name)) return NULL;
    return read_state(self, kind, &t);
}

PyDoc_STRVAR(set_state_doc, "set_state($self, kind, name, array, /)\n--\n\n"
                            "kind: 'master' (the working weight follows), 'm' or 'v' (ConfigError for numbers that master_dtype or moment_dtype\n"
                            "cannot hold).");
static PyObject *Trainer_set_state(TrainerObject *self, PyObject *args) {
    const char *kind_name, *name;
    enum trainer_state kind;
    PyObject *object;
    struct tensor t;
    if (!PyArg_ParseTuple(args, "ssO:set_state", &kind_name, &name, &object) || parse_state(&kind, &t, self, kind_name, name)) return NULL;
    PyArrayObject *array = array_arg(object, NPY_FLOAT32, t.param->C ? 2 : 1, name);
    if (!array) return NULL;
    int status = OK, fits = PyArray_DIM(array, 0) == t.rows && (!t.param->C || PyArray_DIM(array, 1) == t.param->C);
    if (!fits) PyErr_Format(PyExc_ValueError, "the array for %s has another shape than the tensor", name);
    else RUN(self, status, trainer_set(self->t, kind, &t, DATA(float, array)));
    Py_DECREF(array);
    if (status || !fits) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(trainer_plan_doc, "plan($self, /)\n--\n\n[(arena, bytes)] of what is held now.");
static PyObject *Trainer_plan(TrainerObject *self, PyObject *unused) {
    (void)unused;
    struct trainer *t = self->t;
    struct trainer_sizes size = trainer_sizes(t->m->device.ops, &t->m->config, t->config.moments, t->config.masters);
    return Py_BuildValue("[(sn)(sn)(sn)(sn)(sn)(sn)]", "weights", (Py_ssize_t)model_weight_bytes(t->m->device.ops, &t->m->config),
                         "gradients (float32)", (Py_ssize_t)size.grads, "master bits beyond bfloat16", (Py_ssize_t)size.lower,
                         moment_arena(t->config.moments), (Py_ssize_t)size.moments,
                         "gradients of embedded tokens", (Py_ssize_t)((size_t)t->embed_max * embed_row_bytes(t->m->device.ops, &t->m->config)),
                         "activations", (Py_ssize_t)t->acts.bytes);
}

static PyObject *Trainer_get_moment_dtype(TrainerObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(moment_dtypes[self->t->config.moments]);
}
static PyObject *Trainer_get_master_dtype(TrainerObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(master_dtypes[self->t->config.masters]);
}
static PyObject *Trainer_get_steps(TrainerObject *self, void *unused) { (void)unused; return PyLong_FromLongLong(self->t->steps_taken); }
static int Trainer_set_steps(TrainerObject *self, PyObject *value, void *unused) {
    (void)unused;
    long long steps = value ? PyLong_AsLongLong(value) : -1;
    if (PyErr_Occurred()) return -1;
    if (steps < 0) return PyErr_SetString(PyExc_ValueError, "steps_taken must be a number >= 0"), -1;
    self->t->steps_taken = steps;
    return 0;
}

static PyMethodDef methods[] = {
    {"accumulate", (PyCFunction)(void *)Trainer_accumulate, METH_VARARGS | METH_KEYWORDS, accumulate_doc},
    {"accumulate_loss", (PyCFunction)(void *)Trainer_accumulate_loss, METH_VARARGS | METH_KEYWORDS, accumulate_loss_doc},
    {"step", (PyCFunction)(void *)Trainer_step, METH_VARARGS | METH_KEYWORDS, step_doc},
    {"zero_grad", (PyCFunction)Trainer_zero_grad, METH_NOARGS, zero_grad_doc},
    {"gradient", (PyCFunction)Trainer_gradient, METH_O, gradient_doc},
    {"get_state", (PyCFunction)Trainer_get_state, METH_VARARGS, get_state_doc},
    {"set_state", (PyCFunction)Trainer_set_state, METH_VARARGS, set_state_doc},
    {"plan", (PyCFunction)Trainer_plan, METH_NOARGS, trainer_plan_doc},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef getset[] = {
    {"steps_taken", (getter)Trainer_get_steps, (setter)Trainer_set_steps, "AdamW's t", NULL},
    {"moment_dtype", (getter)Trainer_get_moment_dtype, NULL, "Storage of the moments: 'float32', 'bfloat16' or 'float8'", NULL},
    {"master_dtype", (getter)Trainer_get_master_dtype, NULL, "Storage of the master weights: 'float32' or 'float24'", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
PyDoc_STRVAR(trainer_doc, "Trainer(model, *, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-08, weight_decay=0.0, token_budget=1024, "
                          "recompute=False, moment_dtype='float32', master_dtype='float32', seed=0)\n--\n\nGradients, master weights and AdamW moments of one Model.");
static PyType_Slot slots[] = {
    {Py_tp_new, Trainer_new}, {Py_tp_dealloc, Trainer_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, getset},
    {Py_tp_doc, (void *)trainer_doc}, {0, NULL},
};
static PyType_Spec spec = {"grpo._core.Trainer", sizeof(TrainerObject), 0, Py_TPFLAGS_DEFAULT, slots};

PyDoc_STRVAR(plan_doc, "plan(*, n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab_size, tie, qkv_bias, qk_norm, step_prompts, "
                       "num_generations, prompt_length, max_new_tokens, token_budget, recompute, moment_dtype, master_dtype, rollout_prompts, slots, keep_rows, "
                       "train, reference, mixed, device)\n--\n\n[(arena, bytes)] that a run with these settings will hold.");
static PyObject *plan(PyObject *module, PyObject *args, PyObject *kwargs) {
    (void)module;
    static char *names[] = {"n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size", "tie", "qkv_bias", "qk_norm",
                            "step_prompts", "num_generations", "prompt_length", "max_new_tokens", "token_budget", "recompute", "moment_dtype",
                            "master_dtype", "rollout_prompts", "slots", "keep_rows", "train", "reference", "mixed", "device", NULL};
    struct plan_request r = {.config.rms_eps = 1};
    struct config *c = &r.config;
    const char *device, *moment_dtype, *master_dtype;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$iiiiiiipppiiiiipssiiippps:plan", names, &c->n_layers, &c->d_model, &c->n_heads,
                                     &c->n_kv_heads, &c->head_dim, &c->d_ff, &c->vocab_size, &c->tie, &c->qkv_bias, &c->qk_norm,
                                     &r.step_prompts, &r.num_generations, &r.prompt_length, &r.max_new_tokens, &r.token_budget, &r.recompute,
                                     &moment_dtype, &master_dtype, &r.rollout_prompts, &r.slots, &r.keep_rows, &r.train, &r.reference, &r.mixed, &device) ||
        parse_storage(&r.moments, &r.masters, moment_dtype, master_dtype))
        return NULL;
    struct plan_line lines[PLAN_LINES];
    int n, status = plan_memory(lines, &n, device, &r);
    if (status) return raise_status(status);
    PyObject *list = PyList_New(n);
    for (int i = 0; list && i < n; i++) {
        PyObject *line = Py_BuildValue("(sn)", lines[i].arena, (Py_ssize_t)lines[i].bytes);
        if (!line) Py_CLEAR(list);
        else PyList_SET_ITEM(list, i, line);
    }
    return list;
}
static PyMethodDef functions[] = {
    {"plan", (PyCFunction)(void *)plan, METH_VARARGS | METH_KEYWORDS, plan_doc},
    {NULL, NULL, 0, NULL},
};

int add_trainer(PyObject *module) {
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!type || PyModule_AddType(module, type)) return -1;
    Py_DECREF(type);
    return PyModule_AddFunctions(module, functions);
}
