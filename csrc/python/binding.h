/* Floor 5: what the binding files share. Only csrc/python sees Python.h and NumPy.
   Each file holds one subject and hands its type or functions to module.c through its add_* function. */
#ifndef GRPO_BINDING_H
#define GRPO_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#define NPY_TARGET_VERSION NPY_1_23_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL grpo_numpy
#ifndef GRPO_IMPORT_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#include "net/batch.h"

/* Raises the exception class of a status with the message left by fail(); returns NULL. OK is a bug here. */
PyObject *raise_status(int status);

/* A C-contiguous array of exactly this dtype and number of dimensions (ndim < 0: any), new reference, or NULL with
   TypeError/ValueError that names the argument. No conversion: a wrong dtype is the caller's bug. */
PyArrayObject *array_arg(PyObject *object, int type, int ndim, const char *name);
PyObject *array_new(int type, int ndim, const npy_intp *shape);          /* zeroed */
#define DATA(type, array) ((type *)PyArray_DATA(array))

/* A list of 1-D int32 arrays, copied into one run of ids. */
struct ragged_owner {
    struct ragged view;
    int64_t *offset;
    int32_t *ids;
};
int ragged_from_list(struct ragged_owner *out, PyObject *list, const char *name);
void ragged_release(struct ragged_owner *r);
/* float32 (n) or NULL with an exception; `optional`: None gives NULL without one */
const float *floats_arg(PyObject *object, int64_t n, const char *name, int optional, int *failed);

const char *string_arg(PyObject *object, const char *name);      /* UTF-8, or NULL with TypeError */

/* One running call an object: a second thread gets grpo.BusyError instead of a race. */
int busy_enter(int *busy);

/* The statement, while other threads may have the GIL: it touches no Python object. */
#define WITHOUT_GIL(statement)                              \
    do {                                                    \
        PyThreadState *thread_state_ = PyEval_SaveThread(); \
        statement;                                          \
        PyEval_RestoreThread(thread_state_);                \
    } while (0)

/* status = the call, without the GIL, as the object's only one; what it failed with is raised. */
#define RUN_ALONE(busy, status, call)     \
    do {                                  \
        if (busy_enter(busy)) {           \
            (status) = -1;                \
            break;                        \
        }                                 \
        WITHOUT_GIL((status) = (call));   \
        *(busy) = 0;                      \
        if (status) raise_status(status); \
    } while (0)

int add_model(PyObject *module);    /* py_model.c: Model            */
int add_store(PyObject *module);    /* py_store.c: Store            */
int add_trainer(PyObject *module);  /* py_trainer.c: Trainer        */
int add_plan(PyObject *module);     /* py_plan.c: plan              */
int add_loss(PyObject *module);     /* py_loss.c: grpo_loss, group_advantages, selective_log_softmax */
int add_ops(PyObject *module);      /* py_ops.c: Ops, one method an op of ops.def, for tests and benchmarks */
int add_quant(PyObject *module);    /* py_quant.c: de-, quantize    */
int add_vision(PyObject *module);   /* py_vision.c: preprocess, smart_resize */
int add_cuda(PyObject *module);     /* py_cuda.c: cuda_plugin, cuda_devices, cuda_blas */

#endif
