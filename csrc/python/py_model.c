/* grpo._core.Model: one model on one device; load and read tensors, score, differentiate. Generation: py_generate.c. */
#include "py_model.h"
#include "py_spec.h"

#include "run/embed.h"
#include "run/score.h"

#include <stdlib.h>

static PyTypeObject *model_type; /* set once in add_model; the module is single-interpreter */

int busy_enter(int *busy) {
    if (*busy) {
        PyObject *errors = PyImport_ImportModule("grpo.errors");
        PyObject *class = errors ? PyObject_GetAttrString(errors, "BusyError") : NULL;
        if (class) PyErr_SetString(class, "this object is running another call on another thread");
        Py_XDECREF(class);
        Py_XDECREF(errors);
        return -1;
    }
    *busy = 1;
    return 0;
}

ModelObject *model_arg(PyObject *object) {
    if (PyObject_TypeCheck(object, model_type)) return (ModelObject *)object;
    PyErr_Format(PyExc_TypeError, "model must be a grpo._core.Model, not %.100s", Py_TYPE(object)->tp_name);
    return NULL;
}

static int open_model(ModelObject *self, const char *device, const struct spec *spec) {
    const struct ops *ops;
    TRY(ops_find(&ops, device));
    TRY(device_open(&self->device, ops));
    TRY(weights_create(&self->weights, &self->device, spec));
    self->workspace.device = self->device;
    self->session.weights = self->mixture.weights = self->weights;
    self->session.workspace = &self->workspace;
    return OK;
}

static PyObject *Model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"device", "spec", NULL};
    const char *device;
    PyObject *spec_object;
    struct spec spec;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO:Model", names, &device, &spec_object)) return NULL;
    ModelObject *self = spec_parse(&spec, spec_object) ? NULL : (ModelObject *)type->tp_alloc(type, 0);
    if (self) {
        int status;
        WITHOUT_GIL(status = open_model(self, device, &spec));
        if (status) {
            Py_CLEAR(self);
            raise_status(status);
        }
    }
    spec_free(&spec);
    return (PyObject *)self;
}

void free_trainers(ModelObject *model) {
    for (struct trainer **at = &model->trainers, *t = *at; t && !model->busy; t = *at) {
        if (t->abandoned) {
            *at = t->next;
            trainer_free(t);
        } else at = &t->next;
    }
}

static void Model_dealloc(ModelObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    free_trainers(self);
    if (self->weights) {
        session_free(&self->session);
        mixture_free(&self->mixture);
        workspace_free(&self->workspace);
        weights_free(self->weights);
    }
    device_close(&self->device);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *Model_device(ModelObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(self->device.ops->name);
}
static PyObject *Model_tier(ModelObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(self->device.ops->tier);
}
static PyObject *Model_dtype(ModelObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(self->device.ops->real_size == 2 ? "bfloat16" : "float32");
}

/* -- tensors ------------------------------------------------------------------------------------------------------ */

PyObject *tensor_array(const struct tensor *t) {
    npy_intp shape[] = {t->rows, t->param->C};
    return array_new(NPY_FLOAT32, t->param->C ? 2 : 1, shape);
}

PyDoc_STRVAR(tensors_doc,
             "tensors($self, /)\n--\n\n[(Hugging Face name, shape)] of every parameter, in storage order.");
static PyObject *Model_tensors(ModelObject *self, PyObject *unused) {
    (void)unused;
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < self->weights->n_params; i++) {
        const struct param *p = &self->weights->params[i];
        for (int piece = 0; piece < PIECES && p->rows[piece]; piece++) {
            char name[TENSOR_NAME_MAX];
            tensor_name(name, sizeof name, &self->weights->spec, p, piece);
            PyObject *item = p->C ? Py_BuildValue("(s(ii))", name, p->rows[piece], p->C)
                                  : Py_BuildValue("(s(i))", name, p->rows[piece]);
            if (!item || PyList_Append(list, item)) Py_CLEAR(list);
            Py_XDECREF(item);
            if (!list) return NULL;
        }
    }
    return list;
}

static int find_tensor(struct tensor *t, const ModelObject *self, const char *name) {
    int status = tensor_find(t, self->weights, name);
    if (status) raise_status(status);
    return status;
}

static int shape_fits(PyArrayObject *array, const struct tensor *t, const char *name) {
    int C = t->param->C, dims = C ? 2 : 1;
    if (PyArray_NDIM(array) == dims && PyArray_DIM(array, 0) == t->rows && (!C || PyArray_DIM(array, 1) == C)) return 1;
    PyObject *shape = PyObject_GetAttrString((PyObject *)array, "shape");
    if (C) PyErr_Format(PyExc_ValueError, "tensor %s has shape %S, the model needs (%d, %d)", name, shape, t->rows, C);
    else PyErr_Format(PyExc_ValueError, "tensor %s has shape %S, the model needs (%d,)", name, shape, t->rows);
    Py_XDECREF(shape);
    return 0;
}

/* Number i of an array of 16-bit numbers, which a file that is mapped may place anywhere */
static uint16_t load_16(const char *data, npy_intp i) {
    uint16_t bits;
    memcpy(&bits, data + 2 * i, sizeof bits);
    return bits;
}

/* float32 copy of a tensor's array of float32, float16, or bfloat16 bits; NULL with an exception */
static float *widen(PyArrayObject *array, const char *name) {
    int type = PyArray_TYPE(array);
    npy_intp n = PyArray_SIZE(array);
    if (type != NPY_FLOAT32 && type != NPY_FLOAT16 && type != NPY_UINT16) {
        PyErr_Format(PyExc_TypeError, "tensor %s must be float32, float16 or uint16 (bfloat16 bits), not %S", name,
                     PyArray_DESCR(array));
        return NULL;
    }
    float *out = malloc(((size_t)n + 1) * sizeof *out);
    if (!out) return PyErr_NoMemory(), NULL;
    const char *data = PyArray_BYTES(array);
    if (type == NPY_FLOAT32) memcpy(out, data, (size_t)n * sizeof *out);
    else if (type == NPY_FLOAT16)
        for (npy_intp i = 0; i < n; i++) out[i] = half_to_float(load_16(data, i));
    else
        for (npy_intp i = 0; i < n; i++) out[i] = bf16_to_float(load_16(data, i));
    return out;
}

/* What is set here reaches everybody: the working weights, the masters of every trainer, a mixture's float32. */
static int set_weights(ModelObject *self, const struct tensor *t, const float *host) {
    TRY(trainers_set_weights(self->trainers, self->weights, t, host));
    return self->mixture.values ? mixture_set(&self->mixture, t, host) : OK;
}

PyDoc_STRVAR(
    set_tensor_doc,
    "set_tensor($self, name, array, /)\n--\n\narray: float32, float16, or uint16 holding bfloat16 bits, C-contiguous.\n"
    "The master weights of every Trainer on this model are set with it.");
static PyObject *Model_set_tensor(ModelObject *self, PyObject *args) {
    const char *name;
    PyArrayObject *array;
    struct tensor t;
    if (!PyArg_ParseTuple(args, "sO!:set_tensor", &name, &PyArray_Type, &array)) return NULL;
    if (find_tensor(&t, self, name) || !shape_fits(array, &t, name)) return NULL;
    if (!PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISNOTSWAPPED(array))
        return PyErr_Format(PyExc_ValueError, "tensor %s must be C-contiguous and in native byte order", name);
    float *host = widen(array, name);
    if (!host) return NULL;
    int status = OK;
    RUN_ALONE(&self->busy, status, set_weights(self, &t, host));
    free(host);
    if (status) return NULL;
    Py_RETURN_NONE;
}

static int get_weights(const ModelObject *self, float *host, const struct tensor *t) {
    return self->mixture.values ? mixture_get(&self->mixture, t, host) : weights_get(self->weights, t, host);
}

PyDoc_STRVAR(
    get_tensor_doc,
    "get_tensor($self, name, /)\n--\n\n"
    "The weights of a tensor as float32: of a mixed reference what it keeps in float32, else the working weights.");
static PyObject *Model_get_tensor(ModelObject *self, PyObject *arg) {
    struct tensor t;
    const char *name = string_arg(arg, "name");
    if (!name || find_tensor(&t, self, name)) return NULL;
    PyObject *array = tensor_array(&t);
    if (!array) return NULL;
    int status = OK;
    RUN_ALONE(&self->busy, status, get_weights(self, FLOATS(array), &t));
    if (status) Py_CLEAR(array);
    return array;
}

PyDoc_STRVAR(mix_doc, "mix($self, other, alpha, /)\n--\n\nweights = alpha * other + (1 - alpha) * weights.");
static PyObject *Model_mix(ModelObject *self, PyObject *args) {
    PyObject *other;
    float alpha;
    if (!PyArg_ParseTuple(args, "Of:mix", &other, &alpha)) return NULL;
    ModelObject *source = model_arg(other);
    if (!source || (source != self && busy_enter(&source->busy))) return NULL;
    int status = OK;
    RUN_ALONE(&self->busy, status, mixture_move(&self->mixture, source->weights, alpha));
    if (source != self) source->busy = 0;
    if (status) return NULL;
    Py_RETURN_NONE;
}

/* -- score and differentiate --------------------------------------------------------------------------------------- */

PyDoc_STRVAR(logprobs_doc, "logprobs($self, prompts, completions, group, *, temperature=1.0, token_budget=1024)\n--\n\n"
                           "(log-probabilities, entropies) of every completion token, flat float32.");
static PyObject *Model_logprobs(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts", "completions", "group", "temperature", "token_budget", NULL};
    PyObject *prompts, *completions, *group;
    float temperature = 1;
    int token_budget = 1024;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$fi:logprobs", names, &prompts, &completions, &group,
                                     &temperature, &token_budget))
        return NULL;
    struct scored_groups s;
    int status = scored_groups_begin(&s, prompts, completions, group);
    if (!status)
        RUN_ALONE(&self->busy, status,
                  score(&self->session, FLOATS(s.logp), FLOATS(s.entropy), &s.groups, temperature, token_budget));
    PyObject *result = status ? NULL : PyTuple_Pack(2, s.logp, s.entropy);
    scored_groups_end(&s);
    return result;
}

PyDoc_STRVAR(logits_doc, "logits($self, ids, /)\n--\n\n(len(ids), vocab_size) float32.");
static PyObject *Model_logits(ModelObject *self, PyObject *arg) {
    PyArrayObject *ids = array_arg(arg, NPY_INT32, 1, "ids");
    if (!ids) return NULL;
    npy_intp shape[] = {PyArray_SIZE(ids), self->weights->spec.vocab_size};
    PyObject *z = array_new(NPY_FLOAT32, 2, shape);
    int status = z ? OK : -1;
    if (z) RUN_ALONE(&self->busy, status, score_logits(&self->session, FLOATS(z), DATA(int32_t, ids), (int)shape[0]));
    Py_DECREF(ids);
    if (status) Py_CLEAR(z);
    return z;
}

PyDoc_STRVAR(
    embed_doc,
    "embed($self, texts, *, token_budget=1024)\n--\n\n"
    "(n, hidden_size) float32: the mean of the last hidden states, after the final norm, over each text's tokens.");
static PyObject *Model_embed(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"texts", "token_budget", NULL};
    PyObject *list, *vectors = NULL;
    int token_budget = 1024;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$i:embed", names, &list, &token_budget)) return NULL;
    struct ragged_owner texts = {0};
    int status = ragged_from_list(&texts, list, "texts");
    npy_intp shape[] = {texts.view.n, self->weights->spec.d_model};
    if (!status) vectors = array_new(NPY_FLOAT32, 2, shape);
    if (!status && !vectors) status = -1;
    if (!status) RUN_ALONE(&self->busy, status, embed(&self->session, FLOATS(vectors), &texts.view, token_budget));
    ragged_release(&texts);
    if (status) Py_CLEAR(vectors);
    return vectors;
}

/* Every tensor of the gradient arena by name. */
static PyObject *gradient_dict(struct trainer *t) {
    const struct weights *w = t->weights;
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < w->n_params; i++) {
        struct tensor tensor = {.param = &w->params[i]};
        for (int piece = 0; piece < PIECES && tensor.param->rows[piece]; piece++) {
            char name[TENSOR_NAME_MAX];
            tensor.rows = tensor.param->rows[piece];
            PyObject *array = tensor_array(&tensor);
            tensor_name(name, sizeof name, &w->spec, tensor.param, piece);
            int status = array ? trainer_get(t, FLOATS(array), STATE_GRADIENT, &tensor) : OK;
            if (status) raise_status(status);
            if (!array || status || PyDict_SetItemString(dict, name, array)) Py_CLEAR(dict);
            Py_XDECREF(array);
            if (!dict) return NULL;
            tensor.row += tensor.rows;
        }
    }
    return dict;
}

int coefficients_arg(struct coefficients *c, PyObject *coef, PyObject *ecoef, npy_intp tokens) {
    int failed = 0;
    *c = (struct coefficients){.coef = floats_arg(coef, tokens, "coef", 0, &failed)};
    if (!failed) c->ecoef = floats_arg(ecoef, tokens, "entropy_coef", 1, &failed);
    return failed ? -1 : 0;
}

static int differentiate(ModelObject *self, struct trainer **t, const struct train_config *config,
                         struct scored_groups *s, const struct coefficients *c, float temperature) {
    TRY(trainer_create(t, self->weights, &self->workspace, config));
    TRY(trainer_zero_grad(*t));
    TRY(trainer_accumulate(*t, FLOATS(s->logp), FLOATS(s->entropy), &s->groups, c, temperature, NULL, NULL));
    return trainer_flush(*t);
}

PyDoc_STRVAR(logprob_grads_doc,
             "logprob_grads($self, prompts, completions, group, coef, *, entropy_coef=None, temperature=1.0, "
             "token_budget=1024, recompute=False)\n--\n\n"
             "(log-probabilities, gradient of sum(coef * logprob + entropy_coef * entropy) by tensor name).");
static PyObject *Model_logprob_grads(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts",     "completions",  "group",     "coef", "entropy_coef",
                            "temperature", "token_budget", "recompute", NULL};
    PyObject *prompts, *completions, *group, *coef_arg, *ecoef_arg = NULL, *result = NULL;
    float temperature = 1;
    struct train_config config = {.token_budget = 1024, .gradients_only = 1};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$Ofip:logprob_grads", names, &prompts, &completions, &group,
                                     &coef_arg, &ecoef_arg, &temperature, &config.token_budget, &config.recompute))
        return NULL;
    struct scored_groups s;
    struct coefficients c;
    struct trainer *t = NULL;
    int status =
        scored_groups_begin(&s, prompts, completions, group) || coefficients_arg(&c, coef_arg, ecoef_arg, s.tokens) ? -1
                                                                                                                    : 0;
    if (!status) RUN_ALONE(&self->busy, status, differentiate(self, &t, &config, &s, &c, temperature));
    if (!status) result = Py_BuildValue("(ON)", s.logp, gradient_dict(t));
    trainer_free(t);
    scored_groups_end(&s);
    return result;
}

static PyMethodDef methods[] = {
    {"tensors", (PyCFunction)Model_tensors, METH_NOARGS, tensors_doc},
    {"set_tensor", (PyCFunction)Model_set_tensor, METH_VARARGS, set_tensor_doc},
    {"get_tensor", (PyCFunction)Model_get_tensor, METH_O, get_tensor_doc},
    {"mix", (PyCFunction)Model_mix, METH_VARARGS, mix_doc},
    {"generate", (PyCFunction)(void *)generate, METH_VARARGS | METH_KEYWORDS, generate_doc},
    {"logprobs", (PyCFunction)(void *)Model_logprobs, METH_VARARGS | METH_KEYWORDS, logprobs_doc},
    {"logprob_grads", (PyCFunction)(void *)Model_logprob_grads, METH_VARARGS | METH_KEYWORDS, logprob_grads_doc},
    {"logits", (PyCFunction)Model_logits, METH_O, logits_doc},
    {"embed", (PyCFunction)(void *)Model_embed, METH_VARARGS | METH_KEYWORDS, embed_doc},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef getset[] = {
    {"device", (getter)Model_device, NULL, "'cpu', 'cuda' or 'ref'", NULL},
    {"tier", (getter)Model_tier, NULL, "instruction set of the CPU backend", NULL},
    {"dtype", (getter)Model_dtype, NULL, "storage: 'bfloat16' or 'float32'", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
PyDoc_STRVAR(
    model_doc,
    "Model(device, spec)\n--\n\nWeights on one device and everything that runs them. spec: grpo.model.families.Spec.");
static PyType_Slot slots[] = {
    {Py_tp_new, Model_new}, {Py_tp_dealloc, Model_dealloc}, {Py_tp_methods, methods},
    {Py_tp_getset, getset}, {Py_tp_doc, (void *)model_doc}, {0, NULL},
};
static PyType_Spec spec = {"grpo._core.Model", sizeof(ModelObject), 0, Py_TPFLAGS_DEFAULT, slots};

int add_model(PyObject *module) {
    model_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return model_type ? PyModule_AddType(module, model_type) : -1;
}
