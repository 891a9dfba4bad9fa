/* What the methods of Ops have in common; see py_opcall.h. */
#include "py_opcall.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_SIZE = 1 << 28 };   /* of one dimension */

/* -- arguments --------------------------------------------------------------------------------------------------- */

static int size_of(const struct call *a, char letter) {
    const int *d = a->size;
    switch (letter) {
    case 'Q': return (d['H'] + 2 * d['K']) * d['D'];
    case 'Y': return d['H'] * d['D'];
    case 'G': return 2 * d['F'];
    case 'h': return d['D'] / 2;
    case '4': return 4;
    default: return d[(int)letter];
    }
}

static void bind_size(struct call *a, char letter, int size) {
    int *d = a->size;
    if (letter == 'G' && d['F'] < 0) d['F'] = size / 2;
    if (letter == 'h' && d['D'] < 0) d['D'] = 2 * size;
    if (d[(int)letter] < 0) d[(int)letter] = size;
}

static int collect_objects(struct call *a, PyObject *args, PyObject *kwargs) {
    Py_ssize_t used = 0, next = 0, n_args = PyTuple_GET_SIZE(args);
    for (int i = 0; a->op->param[i].name; i++) {
        const struct op_param *p = &a->op->param[i];
        if (p->mode == OUT) continue;
        PyObject *named = kwargs ? PyDict_GetItemString(kwargs, p->name) : NULL;
        used += named != NULL;
        if (named && next < n_args)
            return PyErr_Format(PyExc_TypeError, "%s() got %s twice", a->op->name, p->name), -1;
        PyObject *object = next < n_args ? PyTuple_GET_ITEM(args, next++) : named;
        a->object[i] = object == Py_None ? NULL : object;
        if (!a->object[i] && (p->mode == IN || p->mode == ADD))
            return PyErr_Format(PyExc_TypeError, "%s() needs %s", a->op->name, p->name), -1;
    }
    if (next < n_args)
        return PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments", a->op->name, next), -1;
    if (kwargs && used < PyDict_GET_SIZE(kwargs))
        return PyErr_Format(PyExc_TypeError, "%s() does not know all keywords of %R", a->op->name, kwargs), -1;
    return 0;
}

static int scalar_arg(struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    a->number[i] = p->fallback;
    a->integer[i] = (uint64_t)p->fallback;
    if (!a->object[i]) return 0;
    if (p->storage == NUMBER) {
        a->number[i] = PyFloat_AsDouble(a->object[i]);
        if (a->number[i] != -1 || !PyErr_Occurred()) return 0;
        return PyErr_Format(PyExc_TypeError, "%s must be a number", p->name), -1;
    }
    if (!PyLong_Check(a->object[i])) return PyErr_Format(PyExc_TypeError, "%s must be an integer", p->name), -1;
    a->integer[i] = PyLong_AsUnsignedLongLong(a->object[i]);
    if (PyErr_Occurred() || (p->storage == SIZE && a->integer[i] > MAX_SIZE))
        return PyErr_Format(PyExc_ValueError, "%s is %R: negative or too large", p->name, a->object[i]), -1;
    if (p->storage != SIZE) return 0;
    a->size[(int)p->shape[0]] = (int)a->integer[i];
    return 0;
}

static int check_heads(const struct call *a) {
    const int *d = a->size;
    if (d['H'] < 0 || (d['K'] > 0 && d['H'] > 0 && d['H'] % d['K'] == 0 && d['D'] > 0 && d['D'] % 2 == 0)) return 0;
    return PyErr_Format(PyExc_ValueError, "Hq %d, Hkv %d, D %d: Hq must be a multiple of Hkv and D even, all positive",
                        d['H'], d['K'], d['D']), -1;
}

/* object: what was given for the parameter, or NULL */
static int numpy_type(enum storage storage, PyObject *object) {
    switch (storage) {
    case LOWER: return PyArray_Check(object) && PyArray_TYPE((PyArrayObject *)object) == NPY_UINT8 ? NPY_UINT8 : NPY_UINT16;
    case MOMENT: return PyArray_Check(object) && PyArray_TYPE((PyArrayObject *)object) == NPY_UINT16 ? NPY_UINT16 : NPY_FLOAT32;
    case INT: case HOST_INT: return NPY_INT32;
    case HOST_UINT: return NPY_UINT32;
    case BYTE: return NPY_UINT8;
    case HOST_DOUBLE: return NPY_FLOAT64;
    default: return NPY_FLOAT32;
    }
}

static int check_values(const struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    const int32_t *value = DATA(int32_t, a->array[i]);
    for (npy_intp j = 0; p->below && j < PyArray_SIZE(a->array[i]); j++)
        if (value[j] < 0 || value[j] >= size_of(a, p->below))
            return PyErr_Format(PyExc_ValueError, "%s[%zd] is %d, must be in [0, %d)", p->name, (Py_ssize_t)j,
                                (int)value[j], size_of(a, p->below)), -1;
    return 0;
}

static int array_source(struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    int ndim = (int)strlen(p->shape);
    a->array[i] = array_arg(a->object[i], numpy_type(p->storage, a->object[i]), ndim, p->name);
    if (!a->array[i]) return -1;
    for (int j = 0; j < ndim; j++) {
        npy_intp size = PyArray_DIM(a->array[i], j);
        if (size > MAX_SIZE) return PyErr_Format(PyExc_ValueError, "%s is too large", p->name), -1;
        bind_size(a, p->shape[j], (int)size);
        if (size_of(a, p->shape[j]) != size)
            return PyErr_Format(PyExc_ValueError, "%s has size %zd in dimension %d, must be %d", p->name,
                                (Py_ssize_t)size, j, size_of(a, p->shape[j])), -1;
    }
    return 0;
}

static int new_result(struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    npy_intp shape[4];
    for (int j = 0; p->shape[j]; j++) shape[j] = size_of(a, p->shape[j]);
    a->result[i] = (PyArrayObject *)array_new(numpy_type(p->storage, a->object[i]), (int)strlen(p->shape), shape);
    return a->result[i] ? 0 : -1;
}

static int parse(struct call *a, PyObject *args, PyObject *kwargs) {
    const struct op_param *p = a->op->param;
    if (collect_objects(a, args, kwargs)) return -1;
    for (int i = 0; p[i].name; i++)
        if (p[i].storage >= SIZE && scalar_arg(a, i)) return -1;
    if (check_heads(a)) return -1;
    for (int i = 0; p[i].name; i++)
        if (p[i].storage < SIZE && a->object[i] && array_source(a, i)) return -1;
    for (int i = 0; p[i].name; i++) {
        if (p[i].storage < SIZE && a->array[i] && check_values(a, i)) return -1;
        int returned = p[i].mode == OUT || p[i].mode == SET_OR_ADD || (p[i].mode >= ADD && a->array[i]);
        if (returned && new_result(a, i)) return -1;
    }
    return a->op->check ? a->op->check(a) : 0;
}

/* -- backend memory; no GIL from here ------------------------------------------------------------------------------ */

static int allocate(void **out, const Ops *self, size_t bytes) {
    *out = self->ops->alloc(self->ctx, bytes ? bytes : 1);
    return *out ? OK : fail(E_MEMORY, "no memory for %zu bytes on device '%s'", bytes, self->ops->name);
}

static size_t storage_bytes(const struct ops *o, const struct op_param *p, PyArrayObject *array) {
    size_t n = (size_t)PyArray_SIZE(array);
    if (p->storage == REAL) return n * (size_t)o->real_size;
    if (p->storage == WEIGHT) return o->weight_bytes((int)PyArray_DIM(array, 0), (int)PyArray_DIM(array, 1));
    return (size_t)PyArray_NBYTES(array);
}

/* float32 on the device, `staged`, to the storage of the parameter and back */
static int pack(const Ops *self, const struct op_param *p, void *memory, const float *staged, PyArrayObject *like) {
    size_t n = (size_t)PyArray_SIZE(like);
    if (p->storage == REAL) return self->ops->cast(self->ctx, memory, staged, n);
    if (p->storage == VECTOR) return self->ops->vector_set(self->ctx, memory, staged, (int)n);
    int O = (int)PyArray_DIM(like, 0), C = (int)PyArray_DIM(like, 1);
    return self->ops->weight_set(self->ctx, memory, staged, 0, O, O, C);
}

static int unpack(const Ops *self, const struct op_param *p, float *staged, const void *memory, PyArrayObject *like) {
    if (p->storage == REAL) return self->ops->uncast(self->ctx, staged, memory, (size_t)PyArray_SIZE(like));
    int O = (int)PyArray_DIM(like, 0), C = (int)PyArray_DIM(like, 1);
    return self->ops->weight_get(self->ctx, staged, memory, 0, O, O, C);
}

static int is_packed(enum storage storage) { return storage == REAL || storage == VECTOR || storage == WEIGHT; }

static int upload(const Ops *self, const struct op_param *p, void *memory, PyArrayObject *source) {
    size_t bytes = (size_t)PyArray_NBYTES(source);
    if (!is_packed(p->storage)) return self->ops->upload(self->ctx, memory, PyArray_DATA(source), bytes);
    void *staged;
    TRY(allocate(&staged, self, bytes));
    int status = self->ops->upload(self->ctx, staged, PyArray_DATA(source), bytes);
    if (!status) status = pack(self, p, memory, staged, source);
    self->ops->release(self->ctx, staged);
    return status;
}

static int download(const Ops *self, const struct op_param *p, PyArrayObject *result, const void *memory) {
    size_t bytes = (size_t)PyArray_NBYTES(result);
    if (!is_packed(p->storage)) return self->ops->download(self->ctx, PyArray_DATA(result), memory, bytes);
    void *staged;
    TRY(allocate(&staged, self, bytes));
    int status = unpack(self, p, staged, memory, result);
    if (!status) status = self->ops->download(self->ctx, PyArray_DATA(result), staged, bytes);
    self->ops->release(self->ctx, staged);
    return status;
}

/* all bits set: NaN as float and as bfloat16 */
static int poison(const Ops *self, void *memory, size_t bytes) {
    void *ones = malloc(bytes ? bytes : 1);
    if (!ones) return fail(E_MEMORY, "no memory for %zu bytes", bytes);
    memset(ones, 0xff, bytes);
    int status = self->ops->upload(self->ctx, memory, ones, bytes);
    free(ones);
    return status;
}

static int place_param(const Ops *self, struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    PyArrayObject *source = a->array[i], *like = source ? source : a->result[i];
    if (p->storage >= SIZE || !like) return OK;
    if (p->storage >= HOST_INT) {
        a->memory[i] = PyArray_DATA(like);
        return OK;
    }
    size_t bytes = storage_bytes(self->ops, p, like);
    TRY(allocate(&a->memory[i], self, bytes));
    return source ? upload(self, p, a->memory[i], source) : poison(self, a->memory[i], bytes);
}

static int largest(const struct call *a, const char *letters) {
    int size = 0;
    for (; *letters; letters++) size = max_int(size, size_of(a, *letters));
    return size;
}

static int execute(Ops *self, struct call *a) {
    int rows = largest(a, "NRS"), keys = largest(a, "N");
    if (a->size['P'] > 0) keys = max_int(keys, a->size['P'] * KV_TILE);
    TRY(self->ops->reserve(self->ctx, &(struct op_limits){
        .rows = rows, .head_rows = rows, .slots = rows, .channels = largest(a, "COGQY"), .heads = largest(a, "H"),
        .kv_heads = largest(a, "K"), .head_dim = largest(a, "D"), .vocab = largest(a, "V"), .segments = largest(a, "n"),
        .max_position = keys, .shared_pages = largest(a, "P")}));
    for (int i = 0; a->op->param[i].name; i++) TRY(place_param(self, a, i));
    if (a->op->prepare) TRY(a->op->prepare(self->ops, self->ctx, a));
    self->seconds = INFINITY;
    self->n_times = 0;
    for (int i = 0; i < max_int(1, self->repeat); i++) {
        double start = clock_seconds();
        TRY(a->op->run(self->ops, self->ctx, a));
        TRY(self->ops->download(self->ctx, &start, &start, 0));         /* nothing, but a GPU has finished then */
        double seconds = clock_seconds() - start;
        self->seconds = fmin(self->seconds, seconds);
        if (self->n_times < MAX_TIMES) self->times[self->n_times++] = seconds;
    }
    for (int i = 0; a->op->param[i].name; i++) {
        const struct op_param *p = &a->op->param[i];
        if (a->result[i] && p->storage < HOST_INT) TRY(download(self, p, a->result[i], a->memory[i]));
    }
    return OK;
}

/* -- one call ------------------------------------------------------------------------------------------------------ */

static void finish(const Ops *self, struct call *a) {
    for (int i = 0; a->op->param[i].name; i++) {
        if (a->op->param[i].storage < HOST_INT && a->memory[i]) self->ops->release(self->ctx, a->memory[i]);
        Py_XDECREF(a->array[i]);
        Py_XDECREF(a->result[i]);
    }
    if (a->pool) self->ops->release(self->ctx, a->pool);
}

static PyObject *results(struct call *a) {
    PyObject *list = PyList_New(0);
    for (int i = 0; list && a->op->param[i].name; i++) {
        if (!a->result[i]) continue;
        PyObject *value = PyArray_Return((PyArrayObject *)Py_NewRef(a->result[i]));
        if (!value || PyList_Append(list, value)) Py_CLEAR(list);
        Py_XDECREF(value);
    }
    if (!list) return NULL;
    PyObject *out = PyList_GET_SIZE(list) == 1 ? Py_NewRef(PyList_GET_ITEM(list, 0)) : PyList_AsTuple(list);
    Py_DECREF(list);
    return out;
}

PyObject *invoke(PyObject *self_, const struct op *op, PyObject *args, PyObject *kwargs) {
    Ops *self = (Ops *)self_;
    struct call a = {.op = op};
    memset(a.size, 0xff, sizeof a.size);
    PyObject *out = NULL;
    if (!parse(&a, args, kwargs) && !busy_enter(&self->busy)) {
        int status;
        Py_BEGIN_ALLOW_THREADS
        status = execute(self, &a);
        Py_END_ALLOW_THREADS
        self->busy = 0;
        out = status ? raise_status(status) : results(&a);
    }
    finish(self, &a);
    return out;
}
