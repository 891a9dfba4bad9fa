/* dequantize(): GGUF blocks to a float32 array. */
#include "binding.h"

#include "base/quant.h"

PyDoc_STRVAR(dequantize_doc, "dequantize($module, type, data, count, /)\n--\n\n"
    "GGUF block formats F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q6_K -> float32 (count,).");
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
    /* Every format spends at least half a byte on an element: a count that data cannot hold never reaches the allocator. */
    int status = OK;
    if (count / 2 > data.len) status = fail(E_FORMAT, "%zd elements cannot lie in %zd bytes", count, data.len);
    npy_intp shape[1] = {status ? 0 : (npy_intp)count};
    PyObject *array = array_new(NPY_FLOAT32, 1, shape);
    if (array && !status) {
        float *dst = DATA(float, (PyArrayObject *)array);
        Py_BEGIN_ALLOW_THREADS
        status = dequantize(dst, data.buf, (size_t)data.len, (size_t)count, type);
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

int add_quant(PyObject *module) { return PyModule_AddFunctions(module, methods); }
