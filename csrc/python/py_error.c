/* Status codes -> the exception classes of grpo/errors.py. */
#include "binding.h"

static const struct {
    int status;
    const char *name;
} table[] = {
    {E_CONFIG, "ConfigError"}, {E_FORMAT, "FileFormatError"},   {E_MEMORY, "OutOfMemoryError"},
    {E_DEVICE, "DeviceError"}, {E_NONFINITE, "NonFiniteError"},
};

PyObject *raise_status(int status) {
    if (status == E_INTERRUPT) {
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
        return NULL;
    }
    PyObject *errors = PyImport_ImportModule("grpo.errors");
    if (!errors) return NULL;
    const char *name = "GrpoError";
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].status == status) name = table[i].name;
    PyObject *class = PyObject_GetAttrString(errors, name);
    Py_DECREF(errors);
    if (!class) return NULL;
    PyErr_SetString(class, fail_message());
    Py_DECREF(class);
    return NULL;
}
