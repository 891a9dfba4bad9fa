/* NumPy in and out. */
#include "binding.h"

#include <stdlib.h>

PyArrayObject *array_arg(PyObject *object, int type, int ndim, const char *name) {
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a NumPy array, not %.100s", name, Py_TYPE(object)->tp_name);
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_TYPE(array) != type) {
        PyArray_Descr *want = PyArray_DescrFromType(type);
        PyErr_Format(PyExc_TypeError, "%s must have dtype %S, not %S", name, want, PyArray_DESCR(array));
        Py_XDECREF(want);
        return NULL;
    }
    if (ndim >= 0 && PyArray_NDIM(array) != ndim) {
        PyErr_Format(PyExc_ValueError, "%s must have %d dimension(s), not %d", name, ndim, PyArray_NDIM(array));
        return NULL;
    }
    if (!PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISALIGNED(array) || PyArray_ISBYTESWAPPED(array)) {
        PyErr_Format(PyExc_ValueError, "%s must be C-contiguous, aligned and in native byte order", name);
        return NULL;
    }
    return (PyArrayObject *)Py_NewRef(object);
}

PyObject *array_new(int type, int ndim, const npy_intp *shape) {
    return PyArray_ZEROS(ndim, (npy_intp *)shape, type, 0);
}

enum { LIST_MAX = 1 << 24 };

int ragged_from_list(struct ragged_owner *out, PyObject *list, const char *name) {
    *out = (struct ragged_owner){0};
    PyObject *items = PySequence_Fast(list, "");
    if (!items) {
        PyErr_Format(PyExc_TypeError, "%s must be a list of int32 arrays, not %.100s", name, Py_TYPE(list)->tp_name);
        return -1;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    int64_t total = 0;
    out->offset = malloc(((size_t)n + 1) * sizeof *out->offset);
    if (!out->offset) goto no_memory;
    if (n > LIST_MAX) {
        PyErr_Format(PyExc_ValueError, "%s has %zd entries, more than %d", name, n, LIST_MAX);
        goto failed;
    }
    out->offset[0] = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        char item[96];
        snprintf(item, sizeof item, "%s[%zd]", name, i);
        PyArrayObject *array = array_arg(PySequence_Fast_GET_ITEM(items, i), NPY_INT32, 1, item);
        if (!array) goto failed;
        total += PyArray_SIZE(array);
        out->offset[i + 1] = total;
        Py_DECREF(array);
    }
    out->ids = malloc(((size_t)total + 1) * sizeof *out->ids);
    if (!out->ids) goto no_memory;
    for (Py_ssize_t i = 0; i < n; i++)
        memcpy(out->ids + out->offset[i], DATA(int32_t, (PyArrayObject *)PySequence_Fast_GET_ITEM(items, i)),
               (size_t)(out->offset[i + 1] - out->offset[i]) * sizeof *out->ids);
    out->view = (struct ragged){(int)n, out->offset, out->ids};
    Py_DECREF(items);
    return 0;
no_memory:
    PyErr_NoMemory();
failed:
    Py_DECREF(items);
    return -1;
}

void ragged_release(struct ragged_owner *r) {
    free(r->offset);
    free(r->ids);
    *r = (struct ragged_owner){0};
}

const float *floats_arg(PyObject *object, int64_t n, const char *name, int optional, int *failed) {
    if (optional && (!object || object == Py_None)) return NULL;
    PyArrayObject *array = array_arg(object, NPY_FLOAT32, 1, name);
    if (!array) {
        *failed = 1;
        return NULL;
    }
    const float *data = DATA(float, array);
    if (PyArray_SIZE(array) != n) {
        PyErr_Format(PyExc_ValueError, "%s has %zd numbers, %lld are needed", name, (Py_ssize_t)PyArray_SIZE(array),
                     (long long)n);
        *failed = 1;
    }
    Py_DECREF(array);          /* the caller's argument keeps it alive during the call */
    return data;
}

const char *string_arg(PyObject *object, const char *name) {
    if (PyUnicode_Check(object)) return PyUnicode_AsUTF8(object);
    PyErr_Format(PyExc_TypeError, "%s must be a str, not %.100s", name, Py_TYPE(object)->tp_name);
    return NULL;
}
