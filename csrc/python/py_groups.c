#include "py_groups.h"

#include <stdlib.h>

/* Data of an array that `held` keeps alive; NULL with an exception */
static void *array_data(PyObject *held, PyObject *object, int type, int ndim, const char *name) {
    PyArrayObject *array = array_arg(object, type, ndim, name);
    if (!array) return NULL;
    int failed = PyList_Append(held, (PyObject *)array);
    Py_DECREF(array);
    return failed ? NULL : PyArray_DATA(array);
}

static int has_shape(PyObject *object, const npy_intp *shape, const char *name) {
    PyArrayObject *array = (PyArrayObject *)object;
    for (int i = 0; i < PyArray_NDIM(array); i++)
        if (PyArray_DIM(array, i) != shape[i])
            return PyErr_Format(PyExc_ValueError, "%s has %zd at dimension %d, must have %zd", name,
                                (Py_ssize_t)PyArray_DIM(array, i), i, (Py_ssize_t)shape[i]),
                   0;
    return 1;
}

static int pixels_arg(struct picture *out, PyObject *held, PyObject *object, const struct spec *s, const char *name) {
    npy_intp shape[] = {(npy_intp)out->cells * cell_patches(s), patch_columns(s)};
    if (object == Py_None) return 0;
    out->pixels = array_data(held, object, NPY_FLOAT32, 2, name);
    return out->pixels && has_shape(object, shape, name) ? 0 : -1;
}

static int features_arg(struct picture *out, PyObject *held, PyObject *object, const struct weights *tower,
                        const char *name) {
    const struct spec *s = &tower->spec;
    npy_intp shape[] = {s->vision.n_mergers, out->cells, s->vision.out};
    if (object == Py_None) return 0;
    out->features = array_data(held, object, tower->device.ops->real_size == 2 ? NPY_UINT16 : NPY_FLOAT32, 3, name);
    return out->features && has_shape(object, shape, name) ? 0 : -1;
}

int picture_arg(struct picture *out, PyObject *held, PyObject *object, const struct weights *tower, const char *name) {
    PyObject *grid, *pixels, *features;
    *out = (struct picture){0};
    if (!tower) return PyErr_Format(PyExc_ValueError, "%s: this model has no vision tower", name), -1;
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 3)
        return PyErr_Format(PyExc_TypeError, "%s must be (grid, pixels, features)", name), -1;
    grid = PyTuple_GET_ITEM(object, 0);
    pixels = PyTuple_GET_ITEM(object, 1);
    features = PyTuple_GET_ITEM(object, 2);
    const int64_t *sides = array_data(held, grid, NPY_INT64, 1, name);
    npy_intp three = 3;
    if (!sides || !has_shape(grid, &three, name)) return -1;
    memcpy(out->grid, sides, sizeof out->grid);
    int side = tower->spec.vision.side, most = 1 << 20;
    for (int i = 0; i < 3; i++)
        if (sides[i] < 1 || sides[i] > most || (i && sides[i] % side))
            return PyErr_Format(PyExc_ValueError, "%s: a grid of %lld x %lld x %lld patches; sides are multiples of %d",
                                name, (long long)sides[0], (long long)sides[1], (long long)sides[2], side),
                   -1;
    int64_t cells = sides[0] * (sides[1] / side);
    if (cells > most || cells * (sides[2] / side) > most)
        return PyErr_Format(PyExc_ValueError, "%s: more than %d tokens", name, most), -1;
    out->cells = (int)(cells * (sides[2] / side));
    return pixels_arg(out, held, pixels, &tower->spec, name) || features_arg(out, held, features, tower, name) ? -1 : 0;
}

/* Counts of all prompts, from which memory is taken */
struct counts {
    int64_t images, tokens;
};

/* The parts of a prompt's tuple, borrowed */
struct parts {
    PyObject *positions, *tokens, *images;
    long next;
};
static int parts_of(struct parts *out, PyObject *object, const char *name) {
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) != 4 || !PyList_Check(PyTuple_GET_ITEM(object, 3)) ||
        !PyArray_Check(PyTuple_GET_ITEM(object, 2)))
        return PyErr_Format(PyExc_TypeError, "%s must be None or (positions, next, tokens, images)", name), -1;
    PyObject *next = PyTuple_GET_ITEM(object, 1);
    if (!PyLong_Check(next))
        return PyErr_Format(PyExc_TypeError, "%s: the position after it must be an integer, not %.100s", name,
                            Py_TYPE(next)->tp_name),
               -1;
    int beyond;                            /* -1 then, which is no position */
    *out = (struct parts){.positions = PyTuple_GET_ITEM(object, 0),
                          .tokens = PyTuple_GET_ITEM(object, 2),
                          .images = PyTuple_GET_ITEM(object, 3),
                          .next = PyLong_AsLongAndOverflow(next, &beyond)};
    return 0;
}

static int take_memory(struct pictures_owner *o, const struct ragged *prompts, const struct counts *n, int axes) {
    size_t prompts_n = (size_t)prompts->n;
    o->list = calloc((size_t)n->images + 1, sizeof *o->list);
    o->offset = calloc(prompts_n + 1, sizeof *o->offset);
    o->token_offset = calloc(prompts_n + 1, sizeof *o->token_offset);
    o->tokens = calloc((size_t)n->tokens + 1, sizeof *o->tokens);
    o->positions = calloc((size_t)axes * (size_t)prompts->offset[prompts->n] + 1, sizeof *o->positions);
    o->next = calloc(prompts_n + 1, sizeof *o->next);
    if (o->list && o->offset && o->token_offset && o->tokens && o->positions && o->next) return 0;
    return PyErr_NoMemory(), -1;
}

/* Plain positions of a prompt that has no images */
static void number_tokens(struct pictures_owner *o, const struct ragged *prompts, int i, int axes) {
    for (int axis = 0; axis < axes; axis++)
        for (int t = 0; t < ragged_length(prompts, i); t++)
            o->positions[axis * prompts->offset[prompts->n] + prompts->offset[i] + t] = t;
    o->next[i] = ragged_length(prompts, i);
}

static int take_prompt(struct pictures_owner *o, const struct parts *p, const struct ragged *prompts, int i, int axes,
                       const struct weights *tower) {
    char name[64];
    snprintf(name, sizeof name, "positions of prompt %d", i);
    npy_intp n = ragged_length(prompts, i), shape[] = {axes, n}, all = (npy_intp)prompts->offset[prompts->n];
    const int32_t *positions = array_data(o->held, p->positions, NPY_INT32, 2, name);
    if (!positions || !has_shape(p->positions, shape, name)) return -1;
    for (int axis = 0; axis < axes; axis++)
        memcpy(o->positions + axis * all + prompts->offset[i], positions + axis * n, (size_t)n * sizeof *positions);
    snprintf(name, sizeof name, "tokens of prompt %d", i);
    const int32_t *tokens = array_data(o->held, p->tokens, NPY_INT32, 1, name);
    if (!tokens) return -1;
    npy_intp n_tokens = PyArray_SIZE((PyArrayObject *)p->tokens);
    memcpy(o->tokens + o->token_offset[i], tokens, (size_t)n_tokens * sizeof *tokens);
    o->token_offset[i + 1] = o->token_offset[i] + n_tokens;
    o->next[i] = (int32_t)(p->next < 0 || p->next > INT32_MAX ? -1 : p->next);
    Py_ssize_t n_images = PyList_GET_SIZE(p->images);
    for (Py_ssize_t k = 0; k < n_images; k++) {
        snprintf(name, sizeof name, "image %zd of prompt %d", k, i);
        if (picture_arg(&o->list[o->offset[i] + k], o->held, PyList_GET_ITEM(p->images, k), tower, name)) return -1;
    }
    o->offset[i + 1] = o->offset[i] + n_images;
    return 0;
}

int pictures_arg(const struct pictures **out, struct pictures_owner *o, PyObject *images, const struct ragged *prompts,
                 const struct weights *text, const struct weights *tower) {
    *o = (struct pictures_owner){0};
    *out = NULL;
    if (!images || images == Py_None) return 0;
    if (!PyList_Check(images) || PyList_GET_SIZE(images) != prompts->n)
        return PyErr_Format(PyExc_ValueError, "images must be a list of %d entries, one a prompt", prompts->n), -1;
    struct counts count = {0};
    struct parts parts;
    char name[64];
    int axes = text->spec.axes;
    PyObject *items = PyList_AsTuple(images);        /* of its own: whatever becomes of the list */
    o->held = PyList_New(0);
    int failed = !items || !o->held || PyList_Append(o->held, items);
    Py_XDECREF(items);
    for (int i = 0; i < prompts->n && !failed; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        snprintf(name, sizeof name, "images of prompt %d", i);
        if (item == Py_None) continue;
        failed = parts_of(&parts, item, name);
        if (failed) break;
        count.images += PyList_GET_SIZE(parts.images);
        count.tokens += PyArray_SIZE((PyArrayObject *)parts.tokens);
    }
    failed = failed || take_memory(o, prompts, &count, axes);
    for (int i = 0; i < prompts->n && !failed; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        o->offset[i + 1] = o->offset[i];
        o->token_offset[i + 1] = o->token_offset[i];
        if (item == Py_None) number_tokens(o, prompts, i, axes);
        else failed = parts_of(&parts, item, name) || take_prompt(o, &parts, prompts, i, axes, tower);
    }
    o->view = (struct pictures){o->list, o->offset, o->token_offset, o->tokens, o->positions, o->next};
    *out = &o->view;
    return failed ? -1 : 0;
}

void pictures_release(struct pictures_owner *o) {
    free(o->list);
    free(o->offset);
    free(o->token_offset);
    free(o->tokens);
    free(o->positions);
    free(o->next);
    Py_XDECREF(o->held);
    *o = (struct pictures_owner){0};
}

/* -- groups -------------------------------------------------------------------------------------------------------- */

static int groups_arg(struct scored_groups *s, const struct group_arguments *a) {
    if (ragged_from_list(&s->prompts, a->prompts, "prompts") ||
        ragged_from_list(&s->completions, a->completions, "completions"))
        return -1;
    PyArrayObject *array = array_arg(a->group, NPY_INT32, 1, "group");
    if (!array) return -1;
    int fits = PyArray_SIZE(array) == s->completions.view.n;
    if (!fits)
        PyErr_Format(PyExc_ValueError, "group has %zd entries for %d completions", (Py_ssize_t)PyArray_SIZE(array),
                     s->completions.view.n);
    s->groups = (struct groups){s->prompts.view, s->completions.view, DATA(int32_t, array), NULL};
    Py_DECREF(array);          /* the caller's argument keeps it alive during the call */
    return fits ? 0 : -1;
}

int scored_groups_begin(struct scored_groups *s, const struct group_arguments *a, const struct weights *text,
                        const struct weights *tower) {
    *s = (struct scored_groups){0};
    if (groups_arg(s, a) || pictures_arg(&s->groups.pictures, &s->pictures, a->images, &s->prompts.view, text, tower))
        return -1;
    s->tokens = s->groups.completions.offset[s->groups.completions.n];
    s->logp = array_new(NPY_FLOAT32, 1, &s->tokens);
    s->entropy = array_new(NPY_FLOAT32, 1, &s->tokens);
    return s->logp && s->entropy ? 0 : -1;
}

void scored_groups_end(struct scored_groups *s) {
    ragged_release(&s->prompts);
    ragged_release(&s->completions);
    pictures_release(&s->pictures);
    Py_XDECREF(s->logp);
    Py_XDECREF(s->entropy);
}
