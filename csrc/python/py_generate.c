/* Model.generate: a rollout from Python arguments, and its arrays. */
#include "py_model.h"

#include "run/rollout.h"

#include <stdlib.h>

/* Owned pieces of a request that come from Python lists. */
struct request_owner {
    struct ragged_owner prompts;
    struct pictures_owner pictures;
    PyObject *stop_ids, *forbidden, *offsets;
    int64_t *stop_offset;
    char *stop_bytes;
};

static void release_request(struct request_owner *o) {
    ragged_release(&o->prompts);
    pictures_release(&o->pictures);
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

static int stop_strings_arg(struct rollout_request *q, struct request_owner *o, PyObject *list, PyObject *offsets,
                            PyObject *bytes, int vocab_size) {
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
    int sound = PyArray_SIZE((PyArrayObject *)o->offsets) == vocab_size + 1 && at[0] >= 0 &&
                at[vocab_size] <= PyBytes_GET_SIZE(bytes);
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
static PyObject *flatten(const void *rows, int type, size_t element, const int32_t *length, int n, int width,
                         npy_intp total) {
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

static PyObject *result_dict(const struct rollout_result *r, PyObject *lengths, PyObject *finish, PyObject *stored,
                             int n, int width) {
    npy_intp total = 0;
    for (int i = 0; i < n; i++) total += r->length[i];
    return Py_BuildValue("{s:O,s:O,s:O,s:N,s:N,s:N,s:N,s:d,s:d}", "lengths", lengths, "finish", finish, "stored",
                         stored, "tokens", flatten(r->tokens, NPY_INT32, 4, r->length, n, width, total), "logprobs",
                         flatten(r->logp, NPY_FLOAT32, 4, r->length, n, width, total), "policy_logprobs",
                         flatten(r->policy_logp, NPY_FLOAT32, 4, r->length, n, width, total), "entropies",
                         flatten(r->entropy, NPY_FLOAT32, 4, r->length, n, width, total), "prefill_seconds",
                         r->prefill_seconds, "decode_seconds", r->decode_seconds);
}

static PyObject *run_request(ModelObject *self, const struct rollout_request *q) {
    npy_intp n = (npy_intp)q->prompts.n * q->num_generations;
    struct rollout_size size = {.slots = (int)(n < q->slots ? n : q->slots), .max_new_tokens = q->max_new_tokens};
    /* rollout() refuses these */
    if (q->num_generations < 1 || q->max_new_tokens < 1 || n > COMPLETIONS_MAX || rollout_check_size(&size)) n = 0;
    size_t cells = (size_t)n * (size_t)max_int(1, q->max_new_tokens);
    PyObject *lengths = array_new(NPY_INT32, 1, &n), *finish = array_new(NPY_INT32, 1, &n),
             *stored = array_new(NPY_INT64, 1, &n), *dict = NULL;
    int32_t *buffer = malloc((4 * cells + 1) * sizeof *buffer);
    if (lengths && finish && stored && buffer) {
        struct rollout_result r = {.length = DATA(int32_t, (PyArrayObject *)lengths),
                                   .finish = DATA(int32_t, (PyArrayObject *)finish),
                                   .stored = DATA(int64_t, (PyArrayObject *)stored),
                                   .tokens = buffer,
                                   .logp = (float *)buffer + cells,
                                   .policy_logp = (float *)buffer + 2 * cells,
                                   .entropy = (float *)buffer + 3 * cells};
        int status = OK;
        RUN_ALONE(&self->busy, status, rollout(&self->session, &r, q));
        if (!status) dict = result_dict(&r, lengths, finish, stored, (int)n, q->max_new_tokens);
    } else if (!PyErr_Occurred())
        raise_status(fail(E_MEMORY, "no memory for %d completions of up to %d tokens", (int)n, q->max_new_tokens));
    free(buffer);
    Py_XDECREF(lengths);
    Py_XDECREF(finish);
    Py_XDECREF(stored);
    return dict;
}

const char generate_doc[] =
    "generate($self, prompts, num_generations, max_new_tokens, *, images=None, temperature=1.0, top_k=0, top_p=1.0, "
    "min_p=0.0, repetition_penalty=1.0, min_new_tokens=0, stop_ids=None, forbidden_ids=None, stop_strings=None, "
    "token_offsets=None, token_bytes=None, seed=0, step=0, first_prompt=0, slots=32, store=None, store_rows=0, "
    "lookahead=0, progress=None)\n--\n\n"
    "Completions of token-id prompts, prompt-major; see _core.pyi.";
PyObject *generate(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {
        "prompts",      "num_generations", "max_new_tokens",     "images",         "temperature", "top_k",
        "top_p",        "min_p",           "repetition_penalty", "min_new_tokens", "stop_ids",    "forbidden_ids",
        "stop_strings", "token_offsets",   "token_bytes",        "seed",           "step",        "first_prompt",
        "slots",        "store",           "store_rows",         "lookahead",      "progress",    NULL};
    struct rollout_request q = {.sampler = {.temperature = 1, .top_p = 1, .repetition_penalty = 1}, .slots = 32};
    struct request_owner o = {0};
    PyObject *prompts, *stop_ids = NULL, *forbidden = NULL, *stop_strings = NULL, *offsets = NULL, *bytes = NULL,
                       *progress = NULL, *store = NULL, *images = NULL;
    unsigned long long seed = 0;
    unsigned int step = 0, first_prompt = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "Oii|$OfifffiOOOOOKIIiOiiO:generate", names, &prompts, &q.num_generations, &q.max_new_tokens,
            &images, &q.sampler.temperature, &q.sampler.top_k, &q.sampler.top_p, &q.sampler.min_p,
            &q.sampler.repetition_penalty, &q.min_new_tokens, &stop_ids, &forbidden, &stop_strings, &offsets, &bytes,
            &seed, &step, &first_prompt, &q.slots, &store, &q.store_rows, &q.lookahead, &progress))
        return NULL;
    q.seed = seed;
    q.step = step;
    q.first_prompt = first_prompt;
    if (progress && progress != Py_None) {
        q.progress = call_progress;
        q.progress_arg = progress;
    }
    PyObject *dict = NULL;
    if (!store_arg(&q.store, store, self) && !ragged_from_list(&o.prompts, prompts, "prompts") &&
        !pictures_arg(&q.pictures, &o.pictures, images, &o.prompts.view, self->weights, self->tower) &&
        !ids_arg(&o.stop_ids, &q.stop_ids, &q.n_stop, stop_ids, "stop_ids") &&
        !ids_arg(&o.forbidden, &q.forbidden_ids, &q.n_forbidden, forbidden, "forbidden_ids") &&
        !stop_strings_arg(&q, &o, stop_strings, offsets, bytes, self->weights->spec.vocab_size)) {
        q.prompts = o.prompts.view;
        dict = run_request(self, &q);
    }
    release_request(&o);
    return dict;
}
