/* dequantize(): GGUF blocks to a float32 array; quantize(): an array to blocks; block_formats: the formats it knows. */
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
        WITHOUT_GIL(status = dequantize(dst, data.buf, (size_t)data.len, (size_t)count, type));
    }
    PyBuffer_Release(&data);
    if (!array) return NULL;
    if (status) {
        Py_DECREF(array);
        return raise_status(status);
    }
    return array;
}

PyDoc_STRVAR(quantize_doc, "quantize($module, type, array, /)\n--\n\n"
                           "float32 (n,) -> GGUF blocks, uint8 (bytes,), of F32, F16, BF16 or Q8_0.");
static PyObject *py_quantize(PyObject *module, PyObject *args) {
    (void)module;
    const char *type;
    PyObject *object;
    if (!PyArg_ParseTuple(args, "sO:quantize", &type, &object)) return NULL;
    PyArrayObject *array = array_arg(object, NPY_FLOAT32, 1, "array");
    if (!array) return NULL;
    size_t count = (size_t)PyArray_SIZE(array);
    npy_intp shape[1] = {0};
    for (const struct block_format *f = block_formats; f->name; f++)
        if (!strcmp(f->name, type)) shape[0] = (npy_intp)(count / (size_t)f->elements * (size_t)f->bytes);
    PyObject *blocks = array_new(NPY_UINT8, 1, shape);
    int status = OK;
    if (blocks) {
        uint8_t *dst = DATA(uint8_t, (PyArrayObject *)blocks);
        const float *src = DATA(float, array);
        WITHOUT_GIL(status = quantize(dst, src, count, type));
    }
    Py_DECREF(array);
    if (!blocks) return NULL;
    if (status) {
        Py_DECREF(blocks);
        return raise_status(status);
    }
    return blocks;
}

static PyMethodDef methods[] = {
    {"quantize", py_quantize, METH_VARARGS, quantize_doc},
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
