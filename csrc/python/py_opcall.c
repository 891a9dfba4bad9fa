/* What the methods of Ops have in common; see py_opcall.h. */
#include "py_opcall.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_SIZE = 1 << 28 };   /* of one dimension */

/* -- arguments ----------------------------------------------------------------------------------------------------- */

static const char *const dim_names[] = {[DIM_none] = "",
#define X(name) [DIM_##name] = #name,
                                        DIMENSIONS(X)
#undef X
};

static int size_of(const struct call *a, enum dim dim) {
    const int *d = a->size;
    switch (dim) {
    case DIM_three: return 3;
    case DIM_four: return 4;
    case DIM_levels: return 256;
    case DIM_cells: return d[DIM_P] > 0 ? d[DIM_H] / d[DIM_P] * (d[DIM_W] / d[DIM_P]) : 0;
    case DIM_patch: return 3 * d[DIM_T] * d[DIM_P] * d[DIM_P];
    case DIM_twoF: return 2 * d[DIM_F];
    case DIM_halfD: return d[DIM_D] / 2;
    case DIM_HqD: return d[DIM_Hq] * d[DIM_D];
    case DIM_QKV: return (d[DIM_Hq] + 2 * d[DIM_Hkv]) * d[DIM_D];
    default: return d[dim];
    }
}

/* What a size of this dimension tells */
static enum dim basis(enum dim dim) { return dim == DIM_twoF ? DIM_F : dim == DIM_halfD ? DIM_D : dim; }

static void bind_size(struct call *a, enum dim dim, int size) {
    int *known = &a->size[basis(dim)];
    if (*known < 0) *known = dim == DIM_twoF ? size / 2 : dim == DIM_halfD ? 2 * size : size;
}

static int n_dims(const struct op_param *p) {
    int n = 0;
    while (n < 3 && p->shape[n]) n++;
    return n;
}

/* Whether an array that must be given has the dimension */
static int is_inferred(const struct op *op, enum dim dim) {
    for (const struct op_param *p = op->param; p->name; p++)
        for (int i = 0; p->storage < SIZE && (p->mode == IN || p->mode == ADD) && i < n_dims(p); i++)
            if (basis(p->shape[i]) == dim) return 1;
    return 0;
}

static int is_result(const struct op_param *p) { return p->mode == OUT || p->mode == ADD || p->mode == ADD_OPTIONAL; }

/* Numbers that have a usual value come after all others. */
static int is_option(const struct op_param *p) { return p->storage >= INTEGER && p->mode == OPTIONAL; }
static int is_argument(const struct op *op, const struct op_param *p, int options) {
    return p->mode != OUT && !(p->mode == INFERRED && is_inferred(op, p->shape[0])) && is_option(p) == options;
}

static int collect_one(struct call *a, int i, PyObject *args, Py_ssize_t *next, PyObject *kwargs, Py_ssize_t *used) {
    const struct op_param *p = &a->op->param[i];
    PyObject *named = kwargs ? PyDict_GetItemString(kwargs, p->name) : NULL;
    *used += named != NULL;
    if (named && *next < PyTuple_GET_SIZE(args))
        return PyErr_Format(PyExc_TypeError, "%s() got %s twice", a->op->name, p->name), -1;
    PyObject *object = *next < PyTuple_GET_SIZE(args) ? PyTuple_GET_ITEM(args, (*next)++) : named;
    a->object[i] = object == Py_None ? NULL : object;
    if (!a->object[i] && p->mode != OPTIONAL && p->mode != ADD_OPTIONAL)
        return PyErr_Format(PyExc_TypeError, "%s() needs %s", a->op->name, p->name), -1;
    return 0;
}

static int collect_objects(struct call *a, PyObject *args, PyObject *kwargs) {
    Py_ssize_t used = 0, next = 0, n_args = PyTuple_GET_SIZE(args);
    for (int options = 0; options < 2; options++)
        for (int i = 0; a->op->param[i].name; i++)
            if (is_argument(a->op, &a->op->param[i], options) && collect_one(a, i, args, &next, kwargs, &used))
                return -1;
    if (next < n_args) return PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments", a->op->name, next), -1;
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
    if (p->end && a->integer[i] >= (uint64_t)p->end)
        return PyErr_Format(PyExc_ValueError, "%s is %R, must be in [0, %d)", p->name, a->object[i], p->end), -1;
    if (p->storage != SIZE) return 0;
    a->size[p->shape[0]] = (int)a->integer[i];
    return 0;
}

static int check_heads(const struct call *a) {
    int Hq = a->size[DIM_Hq], Hkv = a->size[DIM_Hkv], D = a->size[DIM_D];
    if (Hq < 0 || (Hkv > 0 && Hq > 0 && Hq % Hkv == 0 && D > 0 && D % 2 == 0)) return 0;
    return PyErr_Format(PyExc_ValueError, "Hq %d, Hkv %d, D %d: Hq must be a multiple of Hkv and D even, all positive",
                        Hq, Hkv, D),
           -1;
}

static int is_of_type(PyObject *object, int type) {
    return PyArray_Check(object) && PyArray_TYPE((PyArrayObject *)object) == type;
}

/* object: what was given for the parameter, or NULL */
static int numpy_type(enum storage storage, PyObject *object) {
    switch (storage) {
    case STORAGE_lower: return is_of_type(object, NPY_UINT8) ? NPY_UINT8 : NPY_UINT16;
    case STORAGE_moment: return is_of_type(object, NPY_UINT16) ? NPY_UINT16 : NPY_FLOAT32;
    case STORAGE_int32_t:
    case STORAGE_segment:
    case HOST_int32_t: return NPY_INT32;
    case HOST_uint32_t: return NPY_UINT32;
    case STORAGE_uint8_t: return NPY_UINT8;
    case HOST_double: return NPY_FLOAT64;
    default: return NPY_FLOAT32;
    }
}

static int check_values(const struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    const int32_t *value = DATA(int32_t, a->array[i]);
    for (npy_intp j = 0; p->below && j < PyArray_SIZE(a->array[i]); j++)
        if (value[j] < 0 || value[j] >= size_of(a, p->below))
            return PyErr_Format(PyExc_ValueError, "%s[%zd] is %d, must be in [0, %d)", p->name, (Py_ssize_t)j,
                                (int)value[j], size_of(a, p->below)),
                   -1;
    return 0;
}

static int check_segments(const struct call *a, int i) {
    const struct segment *s = (const struct segment *)PyArray_DATA(a->array[i]);
    int N = a->size[DIM_N];
    for (int j = 0; j < a->size[DIM_n_segments]; j++, s++)
        if (s->start < 0 || s->len < 0 || s->prefix < 0 || s->prefix_len < 0 || s->start > N - s->len ||
            s->prefix > N - s->prefix_len)
            return PyErr_SetString(PyExc_ValueError, "segments leave the rows of qkv"), -1;
    return 0;
}

static int array_source(struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    int ndim = n_dims(p);
    a->array[i] = array_arg(a->object[i], numpy_type(p->storage, a->object[i]), ndim, p->name);
    if (!a->array[i]) return -1;
    for (int j = 0; j < ndim; j++) {
        npy_intp size = PyArray_DIM(a->array[i], j);
        if (size > MAX_SIZE) return PyErr_Format(PyExc_ValueError, "%s is too large", p->name), -1;
        bind_size(a, p->shape[j], (int)size);
        if (size_of(a, p->shape[j]) != size)
            return PyErr_Format(PyExc_ValueError, "%s has size %zd in dimension %d, must be %d", p->name,
                                (Py_ssize_t)size, j, size_of(a, p->shape[j])),
                   -1;
    }
    return 0;
}

static int new_result(struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    npy_intp shape[3];
    for (int j = 0; j < n_dims(p); j++) shape[j] = size_of(a, p->shape[j]);
    a->result[i] = (PyArrayObject *)array_new(numpy_type(p->storage, a->object[i]), n_dims(p), shape);
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
        if (p[i].storage == STORAGE_segment && check_segments(a, i)) return -1;
        if (is_result(&p[i]) && (p[i].mode == OUT || a->array[i]) && new_result(a, i)) return -1;
    }
    return a->op->check ? a->op->check(a) : 0;
}

/* -- backend memory; no GIL from here ------------------------------------------------------------------------------ */

static int allocate(void **out, const Ops *self, size_t bytes) {
    *out = device_alloc(&self->device, bytes ? bytes : 1);
    return *out ? OK : fail(E_MEMORY, "no memory for %zu bytes on device '%s'", bytes, self->device.ops->name);
}

static size_t storage_bytes(const struct ops *o, const struct op_param *p, PyArrayObject *array) {
    size_t n = (size_t)PyArray_SIZE(array);
    if (p->storage == STORAGE_real) return n * (size_t)o->real_size;
    if (p->storage == STORAGE_weight) return o->weight_bytes((int)PyArray_DIM(array, 0), (int)PyArray_DIM(array, 1));
    return (size_t)PyArray_NBYTES(array);
}

/* float32 on the device, `staged`, to the storage of the parameter and back */
static int pack(const Ops *self, const struct op_param *p, void *memory, const float *staged, PyArrayObject *like) {
    size_t n = (size_t)PyArray_SIZE(like);
    if (p->storage == STORAGE_real) return op_cast(&self->device, memory, staged, n);
    if (p->storage == STORAGE_vector) return op_vector_set(&self->device, memory, staged, (int)n);
    int O = (int)PyArray_DIM(like, 0), C = (int)PyArray_DIM(like, 1);
    return op_weight_set(&self->device, memory, staged, 0, O, O, C);
}

static int unpack(const Ops *self, const struct op_param *p, float *staged, const void *memory, PyArrayObject *like) {
    if (p->storage == STORAGE_real) return op_uncast(&self->device, staged, memory, (size_t)PyArray_SIZE(like));
    int O = (int)PyArray_DIM(like, 0), C = (int)PyArray_DIM(like, 1);
    return op_weight_get(&self->device, staged, memory, 0, O, O, C);
}

static int is_packed(enum storage storage) {
    return storage == STORAGE_real || storage == STORAGE_vector || storage == STORAGE_weight;
}

static int upload(const Ops *self, const struct op_param *p, void *memory, PyArrayObject *source) {
    size_t bytes = (size_t)PyArray_NBYTES(source);
    if (!is_packed(p->storage)) return device_upload(&self->device, memory, PyArray_DATA(source), bytes);
    void *staged;
    TRY(allocate(&staged, self, bytes));
    int status = device_upload(&self->device, staged, PyArray_DATA(source), bytes);
    if (!status) status = pack(self, p, memory, staged, source);
    device_release(&self->device, staged);
    return status;
}

static int download(const Ops *self, const struct op_param *p, PyArrayObject *result, const void *memory) {
    size_t bytes = (size_t)PyArray_NBYTES(result);
    if (!is_packed(p->storage)) return device_download(&self->device, PyArray_DATA(result), memory, bytes);
    void *staged;
    TRY(allocate(&staged, self, bytes));
    int status = unpack(self, p, staged, memory, result);
    if (!status) status = device_download(&self->device, PyArray_DATA(result), staged, bytes);
    device_release(&self->device, staged);
    return status;
}

/* all bits set: NaN as float and as bfloat16 */
static int poison(const Ops *self, void *memory, size_t bytes) {
    void *ones = malloc(bytes ? bytes : 1);
    if (!ones) return fail(E_MEMORY, "no memory for %zu bytes", bytes);
    memset(ones, 0xff, bytes);
    int status = device_upload(&self->device, memory, ones, bytes);
    free(ones);
    return status;
}

static int place_param(const Ops *self, struct call *a, int i) {
    const struct op_param *p = &a->op->param[i];
    PyArrayObject *source = a->array[i], *like = source ? source : a->result[i];
    if (p->storage >= SIZE || !like) return OK;
    if (p->storage >= HOST_int32_t) {
        a->memory[i] = PyArray_DATA(like);
        return OK;
    }
    size_t bytes = storage_bytes(self->device.ops, p, like);
    TRY(allocate(&a->memory[i], self, bytes));
    return source ? upload(self, p, a->memory[i], source) : poison(self, a->memory[i], bytes);
}

static int largest(const struct call *a, const enum dim *dims, int n) {
    int size = 0;
    for (int i = 0; i < n; i++) size = max_int(size, size_of(a, dims[i]));
    return size;
}
#define LARGEST(a, ...) largest(a, (const enum dim[]){__VA_ARGS__}, sizeof (enum dim[]){__VA_ARGS__} / sizeof(enum dim))

static int execute(Ops *self, struct call *a) {
    const struct device *d = &self->device;
    int rows = LARGEST(a, DIM_N, DIM_R, DIM_S), pages = LARGEST(a, DIM_max_pages);
    TRY(device_reserve(d, &(struct op_limits){.rows = rows,
                                              .head_rows = rows,
                                              .slots = rows,
                                              .heads = LARGEST(a, DIM_Hq),
                                              .kv_heads = LARGEST(a, DIM_Hkv),
                                              .channels = LARGEST(a, DIM_C, DIM_O, DIM_twoF, DIM_HqD, DIM_QKV),
                                              .head_dim = LARGEST(a, DIM_D),
                                              .vocab = LARGEST(a, DIM_V),
                                              .segments = LARGEST(a, DIM_n_segments),
                                              .max_position = max_int(LARGEST(a, DIM_N), pages * KV_TILE),
                                              .shared_pages = pages}));
    for (int i = 0; a->op->param[i].name; i++) TRY(place_param(self, a, i));
    if (a->op->prepare) TRY(a->op->prepare(d, a));
    self->seconds = INFINITY;
    self->n_times = 0;
    for (int i = 0; i < max_int(1, self->repeat); i++) {
        double start = clock_seconds();
        TRY(a->op->run(d, a));
        TRY(device_wait(d));
        double seconds = clock_seconds() - start;
        self->seconds = fmin(self->seconds, seconds);
        if (self->n_times < MAX_TIMES) self->times[self->n_times++] = seconds;
    }
    for (int i = 0; a->op->param[i].name; i++) {
        const struct op_param *p = &a->op->param[i];
        if (a->result[i] && p->storage < HOST_int32_t) TRY(download(self, p, a->result[i], a->memory[i]));
    }
    return OK;
}

/* -- one call ------------------------------------------------------------------------------------------------------ */

static void finish(const Ops *self, struct call *a) {
    for (int i = 0; a->op->param[i].name; i++) {
        if (a->op->param[i].storage < HOST_int32_t && a->memory[i]) device_release(&self->device, a->memory[i]);
        Py_XDECREF(a->array[i]);
        Py_XDECREF(a->result[i]);
    }
    if (a->pool) device_release(&self->device, a->pool);
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
        WITHOUT_GIL(status = execute(self, &a));
        self->busy = 0;
        out = status ? raise_status(status) : results(&a);
    }
    finish(self, &a);
    return out;
}

/* -- documentation ------------------------------------------------------------------------------------------------- */

struct text {
    char *at, *end;
};
static void append(struct text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(t->at, (size_t)(t->end - t->at), format, args);
    va_end(args);
    if (n > 0) t->at += n < t->end - t->at ? n : t->end - t->at - 1;
}

static void append_array(struct text *t, const struct op_param *p) {
    append(t, "%s", p->name);
    for (int i = 0; i < n_dims(p); i++) append(t, "%s%s", i ? ", " : " (", dim_names[p->shape[i]]);
    if (n_dims(p)) append(t, ")");
}

/* Whether "=None" may stand behind an array: no argument that must be given follows it. */
static int may_be_left_out(const struct op *op, const struct op_param *p) {
    for (; p->name; p++)
        if (is_argument(op, p, 0) && p->mode != OPTIONAL && p->mode != ADD_OPTIONAL) return 0;
    return 1;
}

const char *describe(const struct op *op) {
    enum { LONGEST = 1500 };
    char *doc = malloc(LONGEST);
    if (!doc) return NULL;
    struct text t = {doc, doc + LONGEST};
    append(&t, "%s($self", op->name);
    for (int options = 0; options < 2; options++)
        for (const struct op_param *p = op->param; p->name; p++) {
            if (!is_argument(op, p, options)) continue;
            append(&t, ", %s", p->name);
            if (options) append(&t, "=%g", p->fallback);
            else if (may_be_left_out(op, p)) append(&t, "=None");
        }
    append(&t, ")\n--\n\n%s.\n\nTakes", op->formula);
    const char *comma = " ";
    for (const struct op_param *p = op->param; p->name; p++)
        if (p->storage < SIZE && p->mode != OUT) append(&t, "%s", comma), append_array(&t, p), comma = ", ";
    append(&t, "; returns");
    comma = " ";
    for (const struct op_param *p = op->param; p->name; p++)
        if (is_result(p)) append(&t, "%s", comma), append_array(&t, p), comma = ", ";
    append(&t, ".");
    return doc;
}
