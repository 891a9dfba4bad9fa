/* Model.attention: what rows of a prompt and its completion look at. */
#include "py_model.h"

#include "run/look.h"

const char attention_doc[] =
    "attention($self, prompt, completion, layers, rows, *, images=None)\n--\n\n"
    "float32 (layers, rows, heads, prompt and completion tokens but the last): the weights of attention.";

/* What is looked at, from four int32 arrays */
struct looked {
    PyArrayObject *prompt, *completion, *layers, *rows;
    int64_t prompt_offset[2], completion_offset[2];
    int32_t group;
    struct groups groups;
};

static void release_looked(struct looked *o) {
    Py_XDECREF(o->prompt);
    Py_XDECREF(o->completion);
    Py_XDECREF(o->layers);
    Py_XDECREF(o->rows);
}

static int take_looked(struct looked *o, PyObject *prompt, PyObject *completion, PyObject *layers, PyObject *rows) {
    if (!(o->prompt = array_arg(prompt, NPY_INT32, 1, "prompt")) ||
        !(o->completion = array_arg(completion, NPY_INT32, 1, "completion")) ||
        !(o->layers = array_arg(layers, NPY_INT32, 1, "layers")) || !(o->rows = array_arg(rows, NPY_INT32, 1, "rows")))
        return -1;
    o->prompt_offset[1] = PyArray_SIZE(o->prompt);
    o->completion_offset[1] = PyArray_SIZE(o->completion);
    o->groups = (struct groups){{1, o->prompt_offset, DATA(int32_t, o->prompt)},
                                {1, o->completion_offset, DATA(int32_t, o->completion)},
                                &o->group,
                                NULL};
    return 0;
}

/* An array for the weights; NULL with an exception */
static PyObject *new_weights(const struct looked *o, const struct spec *spec) {
    int heads, n_layers = (int)PyArray_SIZE(o->layers);
    int status = heads_of_layers(&heads, spec, DATA(int32_t, o->layers), n_layers);
    if (status) return raise_status(status);
    int64_t keys = o->prompt_offset[1] + o->completion_offset[1] - 1;
    npy_intp shape[] = {n_layers, PyArray_SIZE(o->rows), heads, keys > 0 ? (npy_intp)keys : 0};
    return array_new(NPY_FLOAT32, 4, shape);
}

PyObject *attention(ModelObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"prompt", "completion", "layers", "rows", "images", NULL};
    PyObject *prompt, *completion, *layers, *rows, *images = NULL, *list = NULL, *weights = NULL;
    struct looked o = {0};
    struct pictures_owner owner = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO|$O:attention", names, &prompt, &completion, &layers, &rows,
                                     &images))
        return NULL;
    int failed = take_looked(&o, prompt, completion, layers, rows) ||
                 (images && images != Py_None && !(list = Py_BuildValue("[O]", images))) ||
                 pictures_arg(&o.groups.pictures, &owner, list, &o.groups.prompts, self->weights, self->tower);
    int status = failed || !(weights = new_weights(&o, &self->weights->spec)) ? -1 : OK;
    if (!status)
        RUN_ALONE(&self->busy, status,
                  look(&self->session, FLOATS(weights), &o.groups, DATA(int32_t, o.layers), (int)PyArray_SIZE(o.layers),
                       DATA(int32_t, o.rows), (int)PyArray_SIZE(o.rows)));
    pictures_release(&owner);
    Py_XDECREF(list);
    release_looked(&o);
    if (status) Py_CLEAR(weights);
    return weights;
}
