/* grpo._core.Model: one model on one device; load and read tensors, generate, score, differentiate. */
#include "binding.h"

#include "model/kept.h"

#include "rl/embed.h"
#include "rl/rollout.h"
#include "rl/score.h"
#include "rl/train.h"

#include <stdlib.h>

typedef struct {
    PyObject_HEAD
    struct model *m;
    struct inference inference;
    int busy;
} ModelObject;

static PyTypeObject *model_type;     /* set once in add_model; the module is single-interpreter */

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

struct model *model_of(PyObject *object, int **busy) {
    if (!PyObject_TypeCheck(object, model_type)) {
        PyErr_Format(PyExc_TypeError, "model must be a grpo._core.Model, not %.100s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    if (busy) *busy = &((ModelObject *)object)->busy;
    return ((ModelObject *)object)->m;
}

/* Runs `call` (a statement that sets status) without the GIL, as the object's only call. */
#define RUN(self, status, call)                                                                                        \
    do {                                                                                                               \
        if (busy_enter(&(self)->busy)) {                                                                               \
            status = -1;                                                                                               \
            break;                                                                                                     \
        }                                                                                                              \
        Py_BEGIN_ALLOW_THREADS                                                                                         \
        status = (call);                                                                                               \
        Py_END_ALLOW_THREADS                                                                                           \
        (self)->busy = 0;                                                                                              \
        if (status) raise_status(status);                                                                              \
    } while (0)

static PyObject *Model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"device", "n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "d_ff", "vocab_size", "rms_eps",
                            "tie", "qkv_bias", "qk_norm", "inv_freq", NULL};
    const char *device;
    struct config c;
    PyObject *inv_freq;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s$iiiiiiifpppO:Model", names, &device, &c.n_layers, &c.d_model, &c.n_heads, &c.n_kv_heads,
                                     &c.head_dim, &c.d_ff, &c.vocab_size, &c.rms_eps, &c.tie, &c.qkv_bias, &c.qk_norm, &inv_freq))
        return NULL;
    int failed = 0;
    const float *freq = floats_arg(inv_freq, c.head_dim / 2, "inv_freq", 0, &failed);
    if (failed) return NULL;
    ModelObject *self = (ModelObject *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = model_create(&self->m, device, &c, freq);
    Py_END_ALLOW_THREADS
    if (status) {
        Py_DECREF(self);
        return raise_status(status);
    }
    self->inference.m = self->m;
    return (PyObject *)self;
}

static void Model_dealloc(ModelObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->m) inference_free(&self->inference);
    model_free(self->m);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *Model_device(ModelObject *self, void *unused) { (void)unused; return PyUnicode_FromString(self->m->device.ops->name); }
static PyObject *Model_tier(ModelObject *self, void *unused) { (void)unused; return PyUnicode_FromString(self->m->device.ops->tier); }
static PyObject *Model_dtype(ModelObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(self->m->device.ops->real_size == 2 ? "bfloat16" : "float32");
}

/* -- tensors ------------------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(tensors_doc, "tensors($self, /)\n--\n\n[(Hugging Face name, shape)] of every parameter, in storage order.");
static PyObject *Model_tensors(ModelObject *self, PyObject *unused) {
    (void)unused;
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < self->m->n_params; i++) {
        const struct param *p = &self->m->params[i];
        for (int piece = 0; piece < 3 && p->name[piece]; piece++) {
            char name[128];
            model_tensor_name(name, sizeof name, p, piece);
            PyObject *item = p->C ? Py_BuildValue("(s(ii))", name, p->rows[piece], p->C) : Py_BuildValue("(s(i))", name, p->rows[piece]);
            if (!item || PyList_Append(list, item)) Py_CLEAR(list);
            Py_XDECREF(item);
            if (!list) return NULL;
        }
    }
    return list;
}

static int find_tensor(struct tensor *t, const struct model *m, const char *name) {
    int status = model_find(t, m, name);
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

/* float32 copy of an array of float32, float16, or bfloat16 bits; NULL when the dtype is another or memory is out */
static float *widen(PyArrayObject *array) {
    int type = PyArray_TYPE(array);
    npy_intp n = PyArray_SIZE(array);
    if (type != NPY_FLOAT32 && type != NPY_FLOAT16 && type != NPY_UINT16) return NULL;
    float *out = malloc(((size_t)n + 1) * sizeof *out);
    if (!out) return NULL;
    const uint16_t *half = DATA(uint16_t, array);
    if (type == NPY_FLOAT32) memcpy(out, DATA(float, array), (size_t)n * sizeof *out);
    else if (type == NPY_FLOAT16) for (npy_intp i = 0; i < n; i++) out[i] = half_to_float(half[i]);
    else for (npy_intp i = 0; i < n; i++) out[i] = bf16_to_float(half[i]);
    return out;
}

PyDoc_STRVAR(set_tensor_doc, "set_tensor($self, name, array, /)\n--\n\narray: float32, float16, or uint16 holding bfloat16 bits, C-contiguous.");
static PyObject *Model_set_tensor(ModelObject *self, PyObject *args) {
    const char *name;
    PyArrayObject *array;
    struct tensor t;
    if (!PyArg_ParseTuple(args, "sO!:set_tensor", &name, &PyArray_Type, &array)) return NULL;
    if (find_tensor(&t, self->m, name) || !shape_fits(array, &t, name)) return NULL;
    if (!PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISNOTSWAPPED(array))
        return PyErr_Format(PyExc_ValueError, "tensor %s must be C-contiguous and in native byte order", name);
    float *host = widen(array);
    if (!host) return PyErr_Format(PyExc_TypeError, "tensor %s must be float32, float16 or uint16 (bfloat16 bits), not %S", name, PyArray_DESCR(array));
    int status = OK;
    RUN(self, status, model_set(self->m, &t, host));
    free(host);
    if (status) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_tensor_doc, "get_tensor($self, name, /)\n--\n\nThe weights of a tensor as float32: of a mixed reference what it keeps in float32, else the working weights.");
static PyObject *Model_get_tensor(ModelObject *self, PyObject *arg) {
    struct tensor t;
    const char *name = string_arg(arg, "name");
    if (!name || find_tensor(&t, self->m, name)) return NULL;
    npy_intp shape[] = {t.rows, t.param->C};
    PyObject *array = array_new(NPY_FLOAT32, t.param->C ? 2 : 1, shape);
    if (!array) return NULL;
    int status = OK;
    RUN(self, status, model_get(self->m, &t, DATA(float, (PyArrayObject *)array)));
    if (status) Py_CLEAR(array);
    return array;
}

PyDoc_STRVAR(mix_doc, "mix($self, other, alpha, /)\n--\n\nweights = alpha * other + (1 - alpha) * weights.");
static PyObject *Model_mix(ModelObject *self, PyObject *args) {
    PyObject *other;
    float alpha;
    if (!PyArg_ParseTuple(args, "Of:mix", &other, &alpha)) return NULL;
    int *source_busy;
    struct model *source = model_of(other, &source_busy);
    if (!source || (source != self->m && busy_enter(source_busy))) return NULL;
    int status = OK;
    RUN(self, status, model_mix(self->m, source, alpha));
    if (source != self->m) *source_busy = 0;
    if (status) return NULL;
    Py_RETURN_NONE;
}

/* -- generate ------------------------------------------------------------------------------------------------------- */

/* Owned pieces of a request that come from Python lists. */
struct request_owner { struct ragged_owner prompts; PyObject *stop_ids, *forbidden, *offsets; int64_t *stop_offset; char *stop_bytes; };

static void release_request(struct request_owner *o) {
    ragged_release(&o->prompts);
    Py_XDECREF(o->stop_ids);
    Py_XDECREF(o->forbidden);
    Py_XDECREF(o->offsets);
    free(o->stop_offset);
    free(o->stop_bytes);
}

static int ids_arg(PyObject **owner, const int32_t **ids, int *n, PyObject *object, const char *name) {
    if (!object || object == Py_None) return 0;
    *owner = (PyObject *)array_arg(object, NPY_INT32, 1, name);
    if (!*owner) return -1;
    *ids = DATA(int32_t, (PyArrayObject *)*owner);
    *n = (int)PyArray_SIZE((PyArrayObject *)*owner);
    return 0;
}

static int stop_strings_arg(struct rollout_request *q, struct request_owner *o, PyObject *list, PyObject *offsets, PyObject *bytes,
                            int vocab_size) {
    if (!list || list == Py_None) return 0;
    Py_ssize_t n = PySequence_Size(list), total = 0;
    if (n <= 0) return n < 0 ? -1 : 0;
    if (!offsets || !bytes || !PyBytes_Check(bytes)) {
        PyErr_SetString(PyExc_TypeError, "stop_strings need token_offsets (int64 array) and token_bytes (bytes)");
        return -1;
    }
    o->offsets = (PyObject *)array_arg(offsets, NPY_INT64, 1, "token_offsets");
    if (!o->offsets) return -1;
    const int64_t *at = DATA(int64_t, (PyArrayObject *)o->offsets);
    int sound = PyArray_SIZE((PyArrayObject *)o->offsets) == vocab_size + 1 && at[0] >= 0 && at[vocab_size] <= PyBytes_GET_SIZE(bytes);
    for (int i = 0; sound && i < vocab_size; i++) sound = at[i] <= at[i + 1];
    if (!sound) {
        PyErr_Format(PyExc_ValueError, "token_offsets must be %d ascending offsets into token_bytes", vocab_size + 1);
        return -1;
    }
    o->stop_offset = calloc((size_t)n + 1, sizeof *o->stop_offset);
    if (!o->stop_offset) return PyErr_NoMemory(), -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(list, i);
        char *text;
        Py_ssize_t length;
        if (!item || PyBytes_AsStringAndSize(item, &text, &length)) {
            Py_XDECREF(item);
            return -1;
        }
        char *grown = realloc(o->stop_bytes, (size_t)(total + length) + 1);
        if (grown) {
            o->stop_bytes = grown;
            memcpy(grown + total, text, (size_t)length);
        }
        Py_DECREF(item);
        if (!grown) return PyErr_NoMemory(), -1;
        o->stop_offset[i + 1] = total += length;
    }
    q->n_stop_strings = (int)n;
    q->stop_offset = o->stop_offset;
    q->stop_bytes = o->stop_bytes;
    q->token_offset = at;
    q->token_bytes = PyBytes_AS_STRING(bytes);
    return 0;
}

static int call_progress(void *callable, int64_t tokens, int finished) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *result = PyObject_CallFunction(callable, "Li", (long long)tokens, finished);
    int failed = !result;
    Py_XDECREF(result);
    PyGILState_Release(state);
    return failed;
}

/* (n, width) rows of `length` used entries -> one flat array */
static PyObject *flatten(const void *rows, int type, size_t element, const int32_t *length, int n, int width, npy_intp total) {
    PyObject *flat = array_new(type, 1, &total);
    if (!flat) return NULL;
    char *to = PyArray_DATA((PyArrayObject *)flat);
    for (int i = 0; i < n; i++) {
        size_t bytes = (size_t)length[i] * element;
        memcpy(to, (const char *)rows + (size_t)i * (size_t)width * element, bytes);
        to += bytes;
    }
    return flat;
}

static PyObject *result_dict(const struct rollout_result *r, PyObject *lengths, PyObject *finish, PyObject *kept, int n, int width) {
    npy_intp total = 0;
    for (int i = 0; i < n; i++) total += r->length[i];
    return Py_BuildValue("{s:O,s:O,s:O,s:N,s:N,s:N,s:N,s:d,s:d}", "lengths", lengths, "finish", finish, "kept", kept,
                         "tokens", flatten(r->tokens, NPY_INT32, 4, r->length, n, width, total),
                         "logprobs", flatten(r->logp, NPY_FLOAT32, 4, r->length, n, width, total),
                         "policy_logprobs", flatten(r->policy_logp, NPY_FLOAT32, 4, r->length, n, width, total),
                         "entropies", flatten(r->entropy, NPY_FLOAT32, 4, r->length, n, width, total),
                         "prefill_seconds", r->prefill_seconds, "decode_seconds", r->decode_seconds);
}

static PyObject *run_request(ModelObject *self, const struct rollout_request *q) {
    npy_intp n = (npy_intp)q->prompts.n * q->num_generations;
    if (q->num_generations < 1 || q->max_new_tokens < 1 || n > 1 << 24) n = 0;       /* rollout() refuses these */
    size_t cells = (size_t)n * (size_t)max_int(1, q->max_new_tokens);
    PyObject *lengths = array_new(NPY_INT32, 1, &n), *finish = array_new(NPY_INT32, 1, &n), *kept = array_new(NPY_INT64, 1, &n), *dict = NULL;
    int32_t *buffer = malloc((4 * cells + 1) * sizeof *buffer);
    if (lengths && finish && kept && buffer) {
        struct rollout_result r = {.length = DATA(int32_t, (PyArrayObject *)lengths), .finish = DATA(int32_t, (PyArrayObject *)finish),
                                   .kept = DATA(int64_t, (PyArrayObject *)kept),
                                   .tokens = buffer, .logp = (float *)buffer + cells, .policy_logp = (float *)buffer + 2 * cells,
                                   .entropy = (float *)buffer + 3 * cells};
        int status = OK;
        RUN(self, status, rollout(&self->inference, &r, q));
        if (!status) dict = result_dict(&r, lengths, finish, kept, (int)n, q->max_new_tokens);
    } else if (!PyErr_Occurred()) PyErr_NoMemory();
    free(buffer);
    Py_XDECREF(lengths);
    Py_XDECREF(finish);
    Py_XDECREF(kept);
    return dict;
}

PyDoc_STRVAR(generate_doc, "generate($self, prompts, num_generations, max_new_tokens, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, "
                           "repetition_penalty=1.0, min_new_tokens=0, stop_ids=None, forbidden_ids=None, stop_strings=None, "
                           "token_offsets=None, token_bytes=None, seed=0, step=0, first_prompt=0, slots=32, keep_rows=0, keep_inputs=False, "
                           "lookahead=0, progress=None)\n--\n\n"
                           "Completions of token-id prompts, prompt-major; see _core.pyi.");
static PyObject *Model_generate(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts", "num_generations", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
                            "min_new_tokens", "stop_ids", "forbidden_ids", "stop_strings", "token_offsets", "token_bytes", "seed", "step",
                            "first_prompt", "slots", "keep_rows", "keep_inputs", "lookahead", "progress", NULL};
    struct rollout_request q = {.sampler = {.temperature = 1, .top_p = 1, .repetition_penalty = 1}, .slots = 32};
    struct request_owner o = {0};
    PyObject *prompts, *stop_ids = NULL, *forbidden = NULL, *stop_strings = NULL, *offsets = NULL, *bytes = NULL, *progress = NULL;
    unsigned long long seed = 0;
    unsigned int step = 0, first_prompt = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oii|$fifffiOOOOOKIIiipiO:generate", names, &prompts, &q.num_generations, &q.max_new_tokens,
                                     &q.sampler.temperature, &q.sampler.top_k, &q.sampler.top_p, &q.sampler.min_p,
                                     &q.sampler.repetition_penalty, &q.min_new_tokens, &stop_ids, &forbidden, &stop_strings, &offsets,
                                     &bytes, &seed, &step, &first_prompt, &q.slots, &q.keep_rows, &q.keep_inputs, &q.lookahead, &progress))
        return NULL;
    q.seed = seed;
    q.step = step;
    q.first_prompt = first_prompt;
    if (progress && progress != Py_None) {
        q.progress = call_progress;
        q.progress_arg = progress;
    }
    PyObject *dict = NULL;
    if (!ragged_from_list(&o.prompts, prompts, "prompts") && !ids_arg(&o.stop_ids, &q.stop_ids, &q.n_stop, stop_ids, "stop_ids") &&
        !ids_arg(&o.forbidden, &q.forbidden_ids, &q.n_forbidden, forbidden, "forbidden_ids") &&
        !stop_strings_arg(&q, &o, stop_strings, offsets, bytes, self->m->config.vocab_size)) {
        q.prompts = o.prompts.view;
        dict = run_request(self, &q);
    }
    release_request(&o);
    return dict;
}

/* -- score and differentiate ------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(logprobs_doc, "logprobs($self, prompts, completions, group, *, temperature=1.0, token_budget=1024)\n--\n\n"
                           "(log-probabilities, entropies) of every completion token, flat float32.");
static PyObject *Model_logprobs(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts", "completions", "group", "temperature", "token_budget", NULL};
    PyObject *prompts, *completions, *group, *logp = NULL, *entropy = NULL;
    float temperature = 1;
    int token_budget = 1024;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$fi:logprobs", names, &prompts, &completions, &group, &temperature, &token_budget))
        return NULL;
    struct groups g;
    struct ragged_owner p, c;
    int status = groups_from_args(&g, &p, &c, prompts, completions, group);
    if (!status) {
        npy_intp n = g.completions.offset[g.completions.n];
        logp = array_new(NPY_FLOAT32, 1, &n);
        entropy = array_new(NPY_FLOAT32, 1, &n);
        status = logp && entropy ? 0 : -1;
    }
    if (!status)
        RUN(self, status, score(&self->inference, DATA(float, (PyArrayObject *)logp), DATA(float, (PyArrayObject *)entropy), &g, temperature, token_budget));
    ragged_release(&p);
    ragged_release(&c);
    PyObject *result = status ? NULL : PyTuple_Pack(2, logp, entropy);
    Py_XDECREF(logp);
    Py_XDECREF(entropy);
    return result;
}

PyDoc_STRVAR(logits_doc, "logits($self, ids, /)\n--\n\n(len(ids), vocab_size) float32.");
static PyObject *Model_logits(ModelObject *self, PyObject *arg) {
    PyArrayObject *ids = array_arg(arg, NPY_INT32, 1, "ids");
    if (!ids) return NULL;
    npy_intp shape[] = {PyArray_SIZE(ids), self->m->config.vocab_size};
    PyObject *z = array_new(NPY_FLOAT32, 2, shape);
    int status = z ? OK : -1;
    if (z) RUN(self, status, score_logits(&self->inference, DATA(float, (PyArrayObject *)z), DATA(int32_t, ids), (int)shape[0]));
    Py_DECREF(ids);
    if (status) Py_CLEAR(z);
    return z;
}

PyDoc_STRVAR(embed_doc, "embed($self, texts, *, token_budget=1024)\n--\n\n"
                        "(n, d_model) float32: the mean of the last hidden states, after the final norm, over each text's tokens.");
static PyObject *Model_embed(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"texts", "token_budget", NULL};
    PyObject *list, *vectors = NULL;
    int token_budget = 1024;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$i:embed", names, &list, &token_budget)) return NULL;
    struct ragged_owner texts = {0};
    int status = ragged_from_list(&texts, list, "texts");
    npy_intp shape[] = {texts.view.n, self->m->config.d_model};
    if (!status) vectors = array_new(NPY_FLOAT32, 2, shape);
    if (!status && !vectors) status = -1;
    if (!status) RUN(self, status, embed(&self->inference, DATA(float, (PyArrayObject *)vectors), &texts.view, token_budget));
    ragged_release(&texts);
    if (status) Py_CLEAR(vectors);
    return vectors;
}

/* Every tensor of the gradient arena by name. */
static PyObject *gradient_dict(struct trainer *t) {
    struct model *m = t->m;
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        size_t at = p->offset, columns = (size_t)(p->C ? p->C : 1);
        for (int piece = 0; piece < 3 && p->name[piece]; piece++) {
            char name[128];
            npy_intp shape[] = {p->rows[piece], p->C};
            size_t n = (size_t)p->rows[piece] * columns;
            PyObject *array = array_new(NPY_FLOAT32, p->C ? 2 : 1, shape);
            model_tensor_name(name, sizeof name, p, piece);
            int failed = !array || device_download(&m->device, DATA(float, (PyArrayObject *)array), t->grads + at, n * sizeof(float)) ||
                         PyDict_SetItemString(dict, name, array);
            Py_XDECREF(array);
            if (failed) Py_CLEAR(dict);
            if (!dict) return NULL;
            at += n;
        }
    }
    return dict;
}

static int differentiate(struct model *m, struct trainer **t, float *logp, float *entropy, const struct groups *g, const float *coef,
                         const float *ecoef, float temperature, int token_budget, int recompute) {
    struct train_config c = {.token_budget = token_budget, .recompute = recompute};
    TRY(trainer_create(t, m, &c, 0));
    TRY(trainer_accumulate(*t, logp, entropy, g, coef, ecoef, temperature, NULL));
    return trainer_flush(*t);
}

PyDoc_STRVAR(logprob_grads_doc, "logprob_grads($self, prompts, completions, group, coef, *, entropy_coef=None, temperature=1.0, "
                                "token_budget=1024, recompute=False)\n--\n\n"
                                "(log-probabilities, gradient of sum(coef * logprob + entropy_coef * entropy) by tensor name).");
static PyObject *Model_logprob_grads(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompts", "completions", "group", "coef", "entropy_coef", "temperature", "token_budget", "recompute", NULL};
    PyObject *prompts, *completions, *group, *coef_arg, *ecoef_arg = NULL, *logp = NULL, *entropy = NULL, *result = NULL;
    float temperature = 1;
    int token_budget = 1024, recompute = 0, failed = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$Ofip:logprob_grads", names, &prompts, &completions, &group, &coef_arg, &ecoef_arg,
                                     &temperature, &token_budget, &recompute))
        return NULL;
    struct groups g;
    struct ragged_owner p, c;
    struct trainer *t = NULL;
    int status = groups_from_args(&g, &p, &c, prompts, completions, group);
    if (!status) {
        npy_intp n = g.completions.offset[g.completions.n];
        const float *coef = floats_arg(coef_arg, n, "coef", 0, &failed);
        const float *ecoef = failed ? NULL : floats_arg(ecoef_arg, n, "entropy_coef", 1, &failed);
        logp = array_new(NPY_FLOAT32, 1, &n);
        entropy = array_new(NPY_FLOAT32, 1, &n);
        status = failed || !logp || !entropy ? -1 : 0;
        if (!status)
            RUN(self, status, differentiate(self->m, &t, DATA(float, (PyArrayObject *)logp), DATA(float, (PyArrayObject *)entropy), &g, coef,
                                            ecoef, temperature, token_budget, recompute));
    }
    if (!status) result = Py_BuildValue("(ON)", logp, gradient_dict(t));
    trainer_free(t);
    ragged_release(&p);
    ragged_release(&c);
    Py_XDECREF(logp);
    Py_XDECREF(entropy);
    return result;
}

static PyMethodDef methods[] = {
    {"tensors", (PyCFunction)Model_tensors, METH_NOARGS, tensors_doc},
    {"set_tensor", (PyCFunction)Model_set_tensor, METH_VARARGS, set_tensor_doc},
    {"get_tensor", (PyCFunction)Model_get_tensor, METH_O, get_tensor_doc},
    {"mix", (PyCFunction)Model_mix, METH_VARARGS, mix_doc},
    {"generate", (PyCFunction)(void *)Model_generate, METH_VARARGS | METH_KEYWORDS, generate_doc},
    {"logprobs", (PyCFunction)(void *)Model_logprobs, METH_VARARGS | METH_KEYWORDS, logprobs_doc},
    {"logprob_grads", (PyCFunction)(void *)Model_logprob_grads, METH_VARARGS | METH_KEYWORDS, logprob_grads_doc},
    {"logits", (PyCFunction)Model_logits, METH_O, logits_doc},
    {"embed", (PyCFunction)(void *)Model_embed, METH_VARARGS | METH_KEYWORDS, embed_doc},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef getset[] = {
    {"device", (getter)Model_device, NULL, "'cpu' or 'ref'", NULL},
    {"tier", (getter)Model_tier, NULL, "instruction set of the CPU backend", NULL},
    {"dtype", (getter)Model_dtype, NULL, "storage: 'bfloat16' or 'float32'", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
PyDoc_STRVAR(model_doc, "Model(device, *, n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab_size, rms_eps, tie, qkv_bias, "
                        "qk_norm, inv_freq)\n--\n\nWeights on one device and everything that runs them.");
static PyType_Slot slots[] = {
    {Py_tp_new, Model_new}, {Py_tp_dealloc, Model_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, getset}, {Py_tp_doc, (void *)model_doc},
    {0, NULL},
};
static PyType_Spec spec = {"grpo._core.Model", sizeof(ModelObject), 0, Py_TPFLAGS_DEFAULT, slots};

int add_model(PyObject *module) {
    model_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return model_type ? PyModule_AddType(module, model_type) : -1;
}
