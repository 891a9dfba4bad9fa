/* What the CUDA plugin says of itself and of this machine's GPUs. */
#include "binding.h"

#include "ops/plugin.h"

/* The plugin; NULL: Python's error says why there is none. */
static const struct plugin *find_plugin(void) {
    const struct plugin *plugin;
    int status = plugin_find(&plugin);
    if (status) raise_status(status);
    return status ? NULL : plugin;
}

PyDoc_STRVAR(
    plugin_doc,
    "cuda_plugin($module, /)\n--\n\n"
    "(file, toolkit version, architectures) of the CUDA plugin. DeviceError if there is none.\nAsks no driver.");
static PyObject *cuda_plugin(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    const struct plugin *plugin = find_plugin();
    if (!plugin) return NULL;
    return Py_BuildValue("(sNs)", plugin_path(),
                         PyUnicode_FromFormat("%d.%d", plugin->toolkit / 1000, plugin->toolkit % 1000 / 10),
                         plugin->architectures);
}

static int add_device(PyObject *list, const struct plugin *plugin, int index) {
    struct plugin_device d;
    int status = plugin->device(&d, index);
    if (status) return raise_status(status), -1;
    PyObject *item = Py_BuildValue("(s(ii)n)", d.name, d.major, d.minor, (Py_ssize_t)d.memory);
    int failed = !item || PyList_Append(list, item);
    Py_XDECREF(item);
    return failed ? -1 : 0;
}

PyDoc_STRVAR(
    devices_doc,
    "cuda_devices($module, /)\n--\n\n"
    "[(name, (major, minor), bytes of memory)] of the GPUs that CUDA shows; DeviceError says why there is none.");
static PyObject *cuda_devices(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    const struct plugin *plugin = find_plugin();
    int count = 0, status;
    if (!plugin) return NULL;
    Py_BEGIN_ALLOW_THREADS status = plugin->devices(&count);
    Py_END_ALLOW_THREADS if (status) return raise_status(status);
    PyObject *list = PyList_New(0);
    for (int i = 0; list && i < count; i++)
        if (add_device(list, plugin, i)) Py_CLEAR(list);
    return list;
}

PyDoc_STRVAR(search_doc, "cuda_search($module, folders, /)\n--\n\n"
                         "Names folders (one string, ':' between them) where cuBLASLt may be beside the usual places.");
static PyObject *cuda_search(PyObject *module, PyObject *arg) {
    (void)module;
    const char *folders = string_arg(arg, "folders");
    const struct plugin *plugin = folders ? find_plugin() : NULL;
    if (!plugin) return NULL;
    plugin->search(folders);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    blas_doc,
    "cuda_blas($module, /)\n--\n\nThe cuBLASLt that the plugin uses, or why there is none. Opens the library.");
static PyObject *cuda_blas(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    const struct plugin *plugin = find_plugin();
    const char *name;
    if (!plugin) return NULL;
    Py_BEGIN_ALLOW_THREADS name = plugin->blas();
    Py_END_ALLOW_THREADS return PyUnicode_DecodeFSDefault(name);
}

PyDoc_STRVAR(products_doc,
             "cuda_products($module, /)\n--\n\n"
             "What multiplies matrices on the GPU: 'wgmma', or 'mma.sync (why)'. DeviceError where there is none.\n"
             "Opens the GPU.");
static PyObject *cuda_products(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    const struct plugin *plugin = find_plugin();
    const char *name;
    int status;
    if (!plugin) return NULL;
    Py_BEGIN_ALLOW_THREADS status = plugin->products(&name);
    Py_END_ALLOW_THREADS return status ? raise_status(status) : PyUnicode_FromString(name);
}

static PyMethodDef methods[] = {
    {"cuda_plugin", cuda_plugin, METH_NOARGS, plugin_doc},
    {"cuda_devices", cuda_devices, METH_NOARGS, devices_doc},
    {"cuda_search", cuda_search, METH_O, search_doc},
    {"cuda_blas", cuda_blas, METH_NOARGS, blas_doc},
    {"cuda_products", cuda_products, METH_NOARGS, products_doc},
    {NULL, NULL, 0, NULL},
};

int add_cuda(PyObject *module) { return PyModule_AddFunctions(module, methods); }
