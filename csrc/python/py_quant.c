/* dequantize(): GGUF blocks to a float32 array; block_formats: the formats it knows. */
#include "binding.h"

#include "base/quant.h"

PyDoc_STRVAR(dequantize_doc, "dequantize($module, type, data, count, /)\n--\n\n"
                             "GGUF blocks, of a format that block_formats names -> float32 (count,).");
static PyObject *py_dequantize(PyObject *module, PyObject *args) {
    (void)module;
    const char *type;
    Py_buffer data;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "sy*n:dequantize", &type, &data, &count)) return NULL;
    if (count < 0) {
        PyBuffer_Release(&data);
        return PyErr_Format(PyExc_ValueError, "count must not be negative, not %zd", count);
    }
    /* Every format spends at least two bits on an element: a count that data cannot hold reaches no allocator. */
    int status = OK;
    if (count / 4 > data.len) status = fail(E_FORMAT, "%zd elements cannot lie in %zd bytes", count, data.len);
    npy_intp shape[1] = {status ? 0 : (npy_intp)count};
    PyObject *array = array_new(NPY_FLOAT32, 1, shape);
    if (array && !status) {
        float *dst = DATA(float, (PyArrayObject *)array);
        Py_BEGIN_ALLOW_THREADS status = dequantize(dst, data.buf, (size_t)data.len, (size_t)count, type);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    if (!array) return NULL;
    if (status) {
        Py_DECREF(array);
        return raise_status(status);
    }
    return array;
}

static PyMethodDef methods[] = {
    {"dequantize", py_dequantize, METH_VARARGS, dequantize_doc},
    {NULL, NULL, 0, NULL},
};

/* {name: (elements, bytes) of a block} */
static PyObject *formats_dict(void) {
    PyObject *formats = PyDict_New();
    for (const struct block_format *f = block_formats; formats && f->name; f++) {
        PyObject *size = Py_BuildValue("ii", f->elements, f->bytes);
        if (!size || PyDict_SetItemString(formats, f->name, size) < 0) Py_CLEAR(formats);
        Py_XDECREF(size);
    }
    return formats;
}

int add_quant(PyObject *module) {
    PyObject *formats = formats_dict();
    int status = formats ? PyModule_AddObjectRef(module, "block_formats", formats) : -1;
    Py_XDECREF(formats);
    return status < 0 ? status : PyModule_AddFunctions(module, methods);
}
