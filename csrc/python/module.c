/* grpo._core: module definition, threads and interrupts. Everything else is one file a subject. */
#define GRPO_IMPORT_NUMPY
#include "binding.h"

#include "base/threads.h"
#include "ops/device.h"
#include "ops/ops.h"

/* Called by C code that has let go of the GIL, on the thread that called in; looks at signals at most every 50 ms. */
static int check_signals(void) {
    static _Thread_local double last;
    double now = clock_seconds();
    if (now - last < 0.05) return 0;
    last = now;
    PyGILState_STATE state = PyGILState_Ensure();
    int interrupted = PyErr_CheckSignals() != 0;
    PyGILState_Release(state);
    return interrupted;
}

PyDoc_STRVAR(set_num_threads_doc,
             "set_num_threads($module, count, /)\n--\n\nThreads of the CPU backend. Results do not depend on it.");
static PyObject *set_num_threads(PyObject *module, PyObject *arg) {
    (void)module;
    long count = PyLong_AsLong(arg);
    if (count == -1 && PyErr_Occurred()) return NULL;
    int status = threads_set(count > THREADS_MAX || count < 1 ? -1 : (int)count);
    if (status) return raise_status(status);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(get_num_threads_doc, "get_num_threads($module, /)\n--\n\nThreads that the CPU backend uses.");
static PyObject *get_num_threads(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyLong_FromLong(threads_count());
}

PyDoc_STRVAR(memory_in_use_doc,
             "memory_in_use($module, /)\n--\n\nBytes that the C core holds, on the host and on GPUs.");
static PyObject *py_memory_in_use(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    return PyLong_FromSize_t(memory_in_use());
}

PyDoc_STRVAR(backend_doc,
             "backend($module, device, /)\n--\n\n"
             "(name, tier) of a device: 'cpu', 'cuda' or 'ref'. DeviceError if this build or this CPU lacks it.");
static PyObject *backend(PyObject *module, PyObject *arg) {
    (void)module;
    const char *device = PyUnicode_AsUTF8(arg);
    if (!device) return NULL;
    const struct ops *ops;
    int status = ops_find(&ops, device);
    if (status) return raise_status(status);
    return Py_BuildValue("(ss)", ops->name, ops->tier);
}

PyDoc_STRVAR(profile_start_doc, "profile_start($module, /)\n--\n\nCount what every op of the model takes, from 0.");
static PyObject *py_profile_start(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    profile_start();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(profile_doc,
             "profile($module, /)\n--\n\n"
             "[(op, calls, seconds, floating-point operations, bytes)] since profile_start(), which ends.");
static PyObject *profile(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    profile_on = 0;
    PyObject *list = PyList_New(PROFILE_OPS);
    for (int i = 0; list && i < PROFILE_OPS; i++) {
        const struct profile_line *line = &profile_lines[i];
        PyObject *entry =
            Py_BuildValue("(slddd)", line->op, line->calls, line->seconds, line->work.flops, line->work.bytes);
        if (!entry) Py_CLEAR(list);
        else PyList_SET_ITEM(list, i, entry);
    }
    return list;
}

static PyMethodDef methods[] = {
    {"profile_start", py_profile_start, METH_NOARGS, profile_start_doc},
    {"profile", profile, METH_NOARGS, profile_doc},
    {"set_num_threads", set_num_threads, METH_O, set_num_threads_doc},
    {"get_num_threads", get_num_threads, METH_NOARGS, get_num_threads_doc},
    {"memory_in_use", py_memory_in_use, METH_NOARGS, memory_in_use_doc},
    {"backend", backend, METH_O, backend_doc},
    {NULL, NULL, 0, NULL},
};

static int exec_module(PyObject *module) {
    import_array1(-1);
    int status = threads_check();
    if (status) return raise_status(status), -1;
    interrupt_hook = check_signals;
    if (add_model(module) || add_store(module) || add_trainer(module) || add_plan(module) || add_loss(module) ||
        add_ops(module) || add_quant(module) || add_vision(module) || add_cuda(module))
        return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec_module},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "grpo._core",
    .m_doc = "The C core of grpo: models, rollouts, training. Its calls are described in _core.pyi.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&definition); }
