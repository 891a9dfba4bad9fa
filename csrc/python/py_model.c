/* grpo._core.Model: one model on one device; load and read tensors, score, differentiate. Generation: py_generate.c;
   attention: py_look.c. */
#include "py_model.h"
#include "py_spec.h"
#include "py_storage.h"

#include "run/embed.h"
#include "run/score.h"
#include "run/see.h"

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

static int open_tower(ModelObject *self, const struct spec *vision) {
    if (vision->vision.out != self->weights->spec.d_model)
        return fail(E_CONFIG, "vision: features of %d columns for a text of hidden_size %d", vision->vision.out,
                    self->weights->spec.d_model);
    TRY(weights_create(&self->tower, &self->device, vision));
    self->tower_mixture.weights = self->tower;
    return OK;
}

/* vision: NULL, or of the tower beside the text */
static int open_model(ModelObject *self, const char *device, const struct spec *spec, const struct spec *vision) {
    const struct ops *ops;
    TRY(ops_find(&ops, device));
    TRY(device_open(&self->device, ops));
    TRY(weights_create(&self->weights, &self->device, spec));
    self->workspace.device = self->device; /* Model_dealloc frees all of it once there are weights */
    self->session.weights = self->mixture.weights = self->weights;
    self->session.workspace = &self->workspace;
    return vision ? open_tower(self, vision) : OK;
}

static PyObject *Model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"device", "spec", NULL};
    const char *device;
    PyObject *spec_object;
    struct spec spec, vision = {0};
    int has_tower = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO:Model", names, &device, &spec_object)) return NULL;
    int failed = spec_parse(&spec, spec_object) || tower_parse(&vision, &has_tower, spec_object);
    spec.levels = failed || !has_tower ? 0 : feature_levels(&vision);
    ModelObject *self = failed ? NULL : (ModelObject *)type->tp_alloc(type, 0);
    if (self) {
        int status;
        WITHOUT_GIL(status = open_model(self, device, &spec, has_tower ? &vision : NULL));
        if (status) {
            Py_CLEAR(self);
            raise_status(status);
        }
    }
    spec_free(&spec);
    spec_free(&vision);
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
        mixture_free(&self->tower_mixture);
        workspace_free(&self->workspace);
        weights_free(self->tower);
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

static PyObject *Model_tower_version(ModelObject *self, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->tower ? self->tower->version : 0);
}

/* -- tensors ------------------------------------------------------------------------------------------------------ */

/* Which piece of its parameter a whole tensor is */
static int piece_of(const struct tensor *t) {
    int piece = 0;
    for (int row = 0; row < t->row; row += t->param->rows[piece++]) {}
    return piece;
}

static int shape_of(npy_intp shape[TENSOR_DIMS], const struct weights *w, const struct tensor *t) {
    int numbers[TENSOR_DIMS], dims = tensor_shape(numbers, &w->spec, t->param, piece_of(t));
    for (int i = 0; i < dims; i++) shape[i] = numbers[i];
    return dims;
}

static PyObject *shape_tuple(const struct weights *w, const struct tensor *t) {
    npy_intp shape[TENSOR_DIMS];
    int dims = shape_of(shape, w, t);
    return PyArray_IntTupleFromIntp(dims, shape);
}

PyObject *tensor_array(const struct tensor *t, const struct weights *w) {
    npy_intp shape[TENSOR_DIMS];
    int dims = shape_of(shape, w, t);
    return array_new(NPY_FLOAT32, dims, shape);
}

int list_tensors(PyObject *list, const struct weights *w, const size_t *at) {
    for (int i = 0; i < w->n_params; i++) {
        struct tensor t = {.param = &w->params[i]};
        if (at && at[i] == NOT_TRAINED) continue;
        for (int piece = 0; piece < PIECES && t.param->rows[piece]; t.row += t.param->rows[piece++]) {
            char name[TENSOR_NAME_MAX];
            t.rows = t.param->rows[piece];
            tensor_name(name, sizeof name, &w->spec, t.param, piece);
            PyObject *shape = shape_tuple(w, &t), *item = shape ? Py_BuildValue("(sN)", name, shape) : NULL;
            int failed = !item || PyList_Append(list, item);
            Py_XDECREF(item);
            if (failed) return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(tensors_doc, "tensors($self, /)\n--\n\n"
                          "[(Hugging Face name, shape)] of every parameter, in storage order, the tower's last.");
static PyObject *Model_tensors(ModelObject *self, PyObject *unused) {
    (void)unused;
    PyObject *list = PyList_New(0);
    if (list && (list_tensors(list, self->weights, NULL) || (self->tower && list_tensors(list, self->tower, NULL))))
        Py_CLEAR(list);
    return list;
}

int find_tensor(struct tensor *t, struct weights **w, const ModelObject *self, const char *name) {
    *w = self->tower;
    if (self->tower && !tensor_find(t, self->tower, name)) return 0;
    *w = self->weights;
    int status = tensor_find(t, self->weights, name);
    if (status) raise_status(status);
    return status ? -1 : 0;
}

int shape_fits(PyArrayObject *array, const struct tensor *t, const struct weights *w, const char *name) {
    npy_intp shape[TENSOR_DIMS];
    int dims = shape_of(shape, w, t);
    if (PyArray_NDIM(array) == dims && PyArray_CompareLists(PyArray_DIMS(array), shape, dims)) return 1;
    PyObject *found = PyObject_GetAttrString((PyObject *)array, "shape"), *needed = shape_tuple(w, t);
    PyErr_Format(PyExc_ValueError, "tensor %s has shape %S, the model needs %S", name, found, needed);
    Py_XDECREF(found);
    Py_XDECREF(needed);
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
static int set_weights(ModelObject *self, struct weights *w, const struct tensor *t, float *host) {
    struct mixture *mixture = w == self->tower ? &self->tower_mixture : &self->mixture;
    TRY(tensor_from_file(host, w, t));
    TRY(trainers_set_weights(self->trainers, w, t, host));
    return mixture->values ? mixture_set(mixture, t, host) : OK;
}

PyDoc_STRVAR(
    set_tensor_doc,
    "set_tensor($self, name, array, /)\n--\n\narray: float32, float16, or uint16 holding bfloat16 bits, C-contiguous.\n"
    "The master weights of every Trainer on this model are set with it.");
static PyObject *Model_set_tensor(ModelObject *self, PyObject *args) {
    const char *name;
    PyArrayObject *array;
    struct tensor t;
    struct weights *w;
    if (!PyArg_ParseTuple(args, "sO!:set_tensor", &name, &PyArray_Type, &array)) return NULL;
    if (find_tensor(&t, &w, self, name) || !shape_fits(array, &t, w, name)) return NULL;
    if (!PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISNOTSWAPPED(array))
        return PyErr_Format(PyExc_ValueError, "tensor %s must be C-contiguous and in native byte order", name);
    float *host = widen(array, name);
    if (!host) return NULL;
    int status = OK;
    RUN_ALONE(&self->busy, status, set_weights(self, w, &t, host));
    free(host);
    if (status) return NULL;
    Py_RETURN_NONE;
}

static int get_weights(const ModelObject *self, const struct weights *w, float *host, const struct tensor *t) {
    const struct mixture *mixture = w == self->tower ? &self->tower_mixture : &self->mixture;
    TRY(mixture->values ? mixture_get(mixture, t, host) : weights_get(w, t, host));
    return tensor_to_file(host, w, t);
}

PyDoc_STRVAR(
    get_tensor_doc,
    "get_tensor($self, name, /)\n--\n\n"
    "The weights of a tensor as float32: of a mixed reference what it keeps in float32, else the working weights.");
static PyObject *Model_get_tensor(ModelObject *self, PyObject *arg) {
    struct tensor t;
    struct weights *w;
    const char *name = string_arg(arg, "name");
    if (!name || find_tensor(&t, &w, self, name)) return NULL;
    PyObject *array = tensor_array(&t, w);
    if (!array) return NULL;
    int status = OK;
    RUN_ALONE(&self->busy, status, get_weights(self, w, FLOATS(array), &t));
    if (status) Py_CLEAR(array);
    return array;
}

static int mix_models(ModelObject *self, const ModelObject *source, float alpha, int tower) {
    if (!self->tower != !source->tower || (self->tower && !spec_equal(&self->tower->spec, &source->tower->spec)))
        return fail(E_CONFIG, "only models of one shape on one device can be mixed");
    TRY(mixture_move(&self->mixture, source->weights, alpha));
    return self->tower && tower ? mixture_move(&self->tower_mixture, source->tower, alpha) : OK;
}

PyDoc_STRVAR(mix_doc, "mix($self, other, alpha, /, tower=True)\n--\n\n"
                      "weights = alpha * other + (1 - alpha) * weights; without tower those of the text alone.");
static PyObject *Model_mix(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"", "", "tower", NULL};
    PyObject *other;
    float alpha;
    int tower = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Of|p:mix", names, &other, &alpha, &tower)) return NULL;
    ModelObject *source = model_arg(other);
    if (!source || (source != self && busy_enter(&source->busy))) return NULL;
    int status = OK;
    RUN_ALONE(&self->busy, status, mix_models(self, source, alpha, tower));
    if (source != self) source->busy = 0;
    if (status) return NULL;
    Py_RETURN_NONE;
}

/* -- score and differentiate --------------------------------------------------------------------------------------- */

PyDoc_STRVAR(logprobs_doc,
             "logprobs($self, prompts, completions, group, *, images=None, temperature=1.0, token_budget=1024)\n--\n\n"
             "(log-probabilities, entropies) of every completion token, flat float32.");
static PyObject *Model_logprobs(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts", "completions", "group", "images", "temperature", "token_budget", NULL};
    struct group_arguments a = {0};
    float temperature = 1;
    int token_budget = 1024;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$Ofi:logprobs", names, &a.prompts, &a.completions, &a.group,
                                     &a.images, &temperature, &token_budget))
        return NULL;
    struct scored_groups s;
    int status = scored_groups_begin(&s, &a, self->weights, self->tower);
    if (!status)
        RUN_ALONE(&self->busy, status,
                  score(&self->session, FLOATS(s.logp), FLOATS(s.entropy), &s.groups, temperature, token_budget));
    PyObject *result = status ? NULL : PyTuple_Pack(2, s.logp, s.entropy);
    scored_groups_end(&s);
    return result;
}

PyDoc_STRVAR(logits_doc, "logits($self, ids, images=None)\n--\n\n"
                         "(len(ids), vocab_size) float32. images: of this prompt, as in logprobs().");
static PyObject *Model_logits(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"ids", "images", NULL};
    PyObject *ids_object, *images = NULL, *list = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:logits", names, &ids_object, &images)) return NULL;
    PyArrayObject *ids = array_arg(ids_object, NPY_INT32, 1, "ids");
    if (!ids) return NULL;
    int64_t offset[] = {0, PyArray_SIZE(ids)};
    struct ragged prompt = {1, offset, DATA(int32_t, ids)};
    struct pictures_owner owner = {0};
    const struct pictures *pictures = NULL;
    npy_intp shape[] = {PyArray_SIZE(ids), self->weights->spec.vocab_size};
    int failed = images && images != Py_None && !(list = Py_BuildValue("[O]", images));
    failed = failed || pictures_arg(&pictures, &owner, list, &prompt, self->weights, self->tower);
    PyObject *z = failed ? NULL : array_new(NPY_FLOAT32, 2, shape);
    int status = z ? OK : -1;
    if (z) RUN_ALONE(&self->busy, status, score_logits(&self->session, FLOATS(z), &prompt, pictures));
    pictures_release(&owner);
    Py_XDECREF(list);
    Py_DECREF(ids);
    if (status) Py_CLEAR(z);
    return z;
}

PyDoc_STRVAR(
    see_doc,
    "see($self, images, *, patch_budget=4096)\n--\n\n"
    "Features of images, each (grid, pixels, None): a list of arrays (levels, tokens, hidden_size), float32 or "
    "uint16 holding bfloat16 bits. What the tower adds to the first layers of the text are the further levels.");
static PyObject *Model_see(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"images", "patch_budget", NULL};
    PyObject *images;
    int patch_budget = PATCH_BUDGET;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|$i:see", names, &PyList_Type, &images, &patch_budget))
        return NULL;
    if (patch_budget < 1) return raise_status(fail(E_CONFIG, "patch_budget is %d, must be positive", patch_budget));
    PyObject *items = PyList_AsTuple(images), *held = PyList_New(0), *list = items && held ? PyList_New(0) : NULL;
    int n = list ? (int)PyTuple_GET_SIZE(items) : 0, status = list ? OK : -1;
    struct picture *pictures = calloc((size_t)n + 1, sizeof *pictures);
    void **features = calloc((size_t)n + 1, sizeof *features);
    if (list && (!pictures || !features)) status = (PyErr_NoMemory(), -1);
    for (int i = 0; i < n && !status; i++) {
        char name[32];
        snprintf(name, sizeof name, "image %d", i);
        status = picture_arg(&pictures[i], held, PyTuple_GET_ITEM(items, i), self->tower, name);
        if (!status && !pictures[i].pixels) status = (PyErr_Format(PyExc_ValueError, "image %d has no pixels", i), -1);
        if (status) break;
        const struct spec *s = &self->tower->spec;
        npy_intp shape[] = {feature_levels(s), pictures[i].cells, s->vision.out};
        PyObject *array = array_new(self->device.ops->real_size == 2 ? NPY_UINT16 : NPY_FLOAT32, 3, shape);
        if (!array || PyList_Append(list, array)) status = -1;
        if (array) features[i] = PyArray_DATA((PyArrayObject *)array);
        Py_XDECREF(array);
    }
    if (!status && n)
        RUN_ALONE(&self->busy, status, see(self->tower, &self->workspace, features, pictures, n, patch_budget));
    free(pictures);
    free(features);
    Py_XDECREF(items);
    Py_XDECREF(held);
    if (status) Py_CLEAR(list);
    return list;
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

/* Every tensor that a group trains, by name */
static int add_gradients(PyObject *dict, struct trainer *t, const struct param_group *g) {
    const struct weights *w = g->weights;
    for (int i = 0; i < w->n_params; i++) {
        struct tensor tensor = {.param = &w->params[i]};
        if (g->at[i] == NOT_TRAINED) continue;
        for (int piece = 0; piece < PIECES && tensor.param->rows[piece]; piece++) {
            char name[TENSOR_NAME_MAX];
            tensor.rows = tensor.param->rows[piece];
            PyObject *array = tensor_array(&tensor, w);
            tensor_name(name, sizeof name, &w->spec, tensor.param, piece);
            int status = array ? trainer_get(t, FLOATS(array), STATE_GRADIENT, &tensor) : OK;
            if (array && !status) status = tensor_to_file(FLOATS(array), w, &tensor);
            if (status) raise_status(status);
            int failed = !array || status || PyDict_SetItemString(dict, name, array);
            Py_XDECREF(array);
            if (failed) return -1;
            tensor.row += tensor.rows;
        }
    }
    return 0;
}

static PyObject *gradient_dict(struct trainer *t) {
    PyObject *dict = PyDict_New();
    for (int k = 0; dict && k < t->n_groups; k++)
        if (add_gradients(dict, t, &t->groups[k])) Py_CLEAR(dict);
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
    TRY(trainer_create(t, self->weights, self->tower, &self->workspace, config));
    TRY(trainer_zero_grad(*t));
    TRY(trainer_accumulate(*t, FLOATS(s->logp), FLOATS(s->entropy), &s->groups, c, temperature, NULL, NULL));
    return trainer_flush(*t);
}

PyDoc_STRVAR(logprob_grads_doc,
             "logprob_grads($self, prompts, completions, group, coef, *, images=None, entropy_coef=None, "
             "temperature=1.0, token_budget=1024, recompute=False, train_vision='none')\n--\n\n"
             "(log-probabilities, gradient of sum(coef * logprob + entropy_coef * entropy) by tensor name).");
static PyObject *Model_logprob_grads(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts",     "completions",  "group",     "coef",         "images", "entropy_coef",
                            "temperature", "token_budget", "recompute", "train_vision", NULL};
    struct group_arguments a = {0};
    PyObject *coef_arg, *ecoef_arg = NULL, *result = NULL;
    float temperature = 1;
    const char *train_vision = "none";
    struct train_config config = {.token_budget = 1024, .gradients_only = 1, .vision_rate = 1};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$OOfips:logprob_grads", names, &a.prompts, &a.completions,
                                     &a.group, &coef_arg, &a.images, &ecoef_arg, &temperature, &config.token_budget,
                                     &config.recompute, &train_vision) ||
        parse_vision(&config.vision, train_vision))
        return NULL;
    struct scored_groups s;
    struct coefficients c;
    struct trainer *t = NULL;
    int status =
        scored_groups_begin(&s, &a, self->weights, self->tower) || coefficients_arg(&c, coef_arg, ecoef_arg, s.tokens)
            ? -1
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
    {"mix", (PyCFunction)(void *)Model_mix, METH_VARARGS | METH_KEYWORDS, mix_doc},
    {"generate", (PyCFunction)(void *)generate, METH_VARARGS | METH_KEYWORDS, generate_doc},
    {"logprobs", (PyCFunction)(void *)Model_logprobs, METH_VARARGS | METH_KEYWORDS, logprobs_doc},
    {"logprob_grads", (PyCFunction)(void *)Model_logprob_grads, METH_VARARGS | METH_KEYWORDS, logprob_grads_doc},
    {"logits", (PyCFunction)(void *)Model_logits, METH_VARARGS | METH_KEYWORDS, logits_doc},
    {"attention", (PyCFunction)(void *)attention, METH_VARARGS | METH_KEYWORDS, attention_doc},
    {"see", (PyCFunction)(void *)Model_see, METH_VARARGS | METH_KEYWORDS, see_doc},
    {"embed", (PyCFunction)(void *)Model_embed, METH_VARARGS | METH_KEYWORDS, embed_doc},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef getset[] = {
    {"device", (getter)Model_device, NULL, "'cpu', 'cuda' or 'ref'", NULL},
    {"tier", (getter)Model_tier, NULL, "instruction set of the CPU backend", NULL},
    {"dtype", (getter)Model_dtype, NULL, "storage: 'bfloat16' or 'float32'", NULL},
    {"tower_version", (getter)Model_tower_version, NULL, "one more with every change of the tower's weights", NULL},
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
