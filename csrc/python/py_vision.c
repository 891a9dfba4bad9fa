/* preprocess(): images to what a vision tower reads; smart_resize(): the size it reads them at (run/preprocess.h). */
#include "binding.h"

#include <stdlib.h>

#include "ops/device.h"
#include "run/preprocess.h"

enum { SIDE_MAX = 1 << 24, TABLE = 3 * 256 };

PyDoc_STRVAR(smart_resize_doc, "smart_resize($module, height, width, factor, min_pixels, max_pixels, /)\n--\n\n"
                               "(height, width) at which Qwen2-VL and its successors see an image of that size.");
static PyObject *py_smart_resize(PyObject *module, PyObject *args) {
    (void)module;
    int height, width, factor, new_height, new_width;
    long long min_pixels, max_pixels;
    if (!PyArg_ParseTuple(args, "iiiLL:smart_resize", &height, &width, &factor, &min_pixels, &max_pixels)) return NULL;
    int status = factor < 1 || min_pixels < 1 || max_pixels < min_pixels
                     ? fail(E_CONFIG, "factor %d, min_pixels %lld, max_pixels %lld: must be positive and ascend",
                            factor, min_pixels, max_pixels)
                     : smart_resize(&new_height, &new_width, height, width, factor, min_pixels, max_pixels);
    if (status) return raise_status(status);
    return Py_BuildValue("(ii)", new_height, new_width);
}

/* What a call was given. The arrays keep their pixels alive while the GIL is gone. */
struct request {
    int n;
    struct image *images;
    PyArrayObject **arrays;
    struct patch_rule rule;
    PyArrayObject *table;
};

static void request_free(struct request *r) {
    for (int i = 0; r->arrays && i < r->n; i++) Py_XDECREF(r->arrays[i]);
    free(r->arrays);
    free(r->images);
    Py_XDECREF(r->table);
}

static int image_arg(struct request *r, int i, PyObject *object, const int32_t *size) {
    char name[32];
    snprintf(name, sizeof name, "images[%d]", i);
    PyArrayObject *array = r->arrays[i] = array_arg(object, NPY_UINT8, 3, name);
    if (!array) return -1;
    npy_intp height = PyArray_DIM(array, 0), width = PyArray_DIM(array, 1);
    int block = r->rule.patch * r->rule.merge;
    if (PyArray_DIM(array, 2) != 3 || height < 1 || width < 1 || height > SIDE_MAX || width > SIDE_MAX)
        return PyErr_Format(PyExc_ValueError, "%s is (%zd, %zd, %zd), must be (height, width, 3)", name, height, width,
                            PyArray_DIM(array, 2)),
               -1;
    if (size[0] < 1 || size[1] < 1 || size[0] > SIDE_MAX || size[1] > SIDE_MAX || size[0] % block || size[1] % block)
        return PyErr_Format(PyExc_ValueError, "sizes[%d] is %d x %d, must be whole blocks of %d x %d pixels", i,
                            (int)size[0], (int)size[1], block, block),
               -1;
    r->images[i] = (struct image){DATA(uint8_t, array), (int)height, (int)width, size[0], size[1]};
    return 0;
}

static int images_arg(struct request *r, PyObject *list, PyObject *sizes_object) {
    PyObject *items = PySequence_Fast(list, "images must be a list of uint8 arrays");
    if (!items) return -1;
    PyArrayObject *sizes = array_arg(sizes_object, NPY_INT32, 2, "sizes");
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    int failed = !sizes;
    if (sizes && (PyArray_DIM(sizes, 0) != n || PyArray_DIM(sizes, 1) != 2)) {
        PyErr_Format(PyExc_ValueError, "sizes must be (%zd, 2), height and width for each image", n);
        failed = 1;
    }
    r->images = calloc((size_t)n + 1, sizeof *r->images);
    r->arrays = calloc((size_t)n + 1, sizeof *r->arrays);
    if (!failed && (!r->images || !r->arrays)) PyErr_NoMemory(), failed = 1;
    for (Py_ssize_t i = 0; !failed && i < n; i++, r->n++) {
        failed = image_arg(r, (int)i, PySequence_Fast_GET_ITEM(items, i), DATA(int32_t, sizes) + 2 * i);
        if (failed) Py_CLEAR(r->arrays[i]);
    }
    Py_XDECREF(sizes);
    Py_DECREF(items);
    return failed ? -1 : 0;
}

static int rule_arg(struct request *r, PyObject *table) {
    enum { MOST = 1 << 10 };
    struct patch_rule *rule = &r->rule;
    if (rule->patch < 1 || rule->merge < 1 || rule->frames < 1 || rule->patch > MOST || rule->merge > MOST ||
        rule->frames > MOST)
        return PyErr_Format(PyExc_ValueError, "patch_size %d, merge_size %d, temporal_patch_size %d: must be in 1..%d",
                            rule->patch, rule->merge, rule->frames, MOST),
               -1;
    r->table = array_arg(table, NPY_FLOAT32, 2, "table");
    if (!r->table) return -1;
    rule->table = DATA(float, r->table);
    if (PyArray_DIM(r->table, 0) == 3 && PyArray_DIM(r->table, 1) == TABLE / 3) return 0;
    return PyErr_SetString(PyExc_ValueError, "table must be (3, 256)"), -1;
}

/* rows is host memory. A device whose memory is elsewhere gets room for them. */
static int run(const struct ops *ops, float *rows, size_t count, const struct request *r) {
    struct device device;
    TRY(device_open(&device, ops));
    float *there = ops->host_memory ? rows : device_alloc(&device, count * sizeof *rows);
    int status =
        there ? preprocess(&device, there, r->images, r->n, &r->rule)
              : fail(E_MEMORY, "no memory for %zu bytes of pixels on device '%s'", count * sizeof *rows, ops->name);
    if (!status && !ops->host_memory) status = device_download(&device, rows, there, count * sizeof *rows);
    if (!ops->host_memory) device_release(&device, there);
    device_close(&device);
    return status;
}

/* (n, 3): frames, which a still image has one pair of, rows and columns of patches */
static PyObject *grid_of(const struct request *r) {
    npy_intp shape[2] = {r->n, 3};
    PyObject *grid = array_new(NPY_INT64, 2, shape);
    for (int i = 0; grid && i < r->n; i++) {
        int64_t *row = DATA(int64_t, (PyArrayObject *)grid) + 3 * i;
        row[0] = 1;
        row[1] = r->images[i].new_height / r->rule.patch;
        row[2] = r->images[i].new_width / r->rule.patch;
    }
    return grid;
}

static PyObject *preprocess_request(const struct ops *ops, const struct request *r) {
    npy_intp shape[2] = {0, (npy_intp)patch_numbers(&r->rule)};
    for (int i = 0; i < r->n; i++) shape[0] += (npy_intp)image_patches(&r->images[i], &r->rule);
    PyObject *rows = PyArray_EMPTY(2, shape, NPY_FLOAT32, 0), *grid = rows ? grid_of(r) : NULL;
    if (!grid) {
        Py_XDECREF(rows);
        return NULL;
    }
    int status;
    float *data = DATA(float, (PyArrayObject *)rows);
    size_t count = (size_t)PyArray_SIZE((PyArrayObject *)rows);
    WITHOUT_GIL(status = run(ops, data, count, r));
    PyObject *out = status ? raise_status(status) : PyTuple_Pack(2, rows, grid);
    Py_DECREF(rows);
    Py_DECREF(grid);
    return out;
}

PyDoc_STRVAR(
    preprocess_doc,
    "preprocess($module, /, images, sizes, *, table, patch_size, merge_size, temporal_patch_size, device)\n"
    "--\n\n"
    "(pixel_values, image_grid_thw) of images (height, width, 3), resized to sizes; table (3, 256): the number\n"
    "that a byte of a colour becomes.");
static PyObject *py_preprocess(PyObject *module, PyObject *args, PyObject *kwargs) {
    (void)module;
    static char *names[] = {"images", "sizes", "table", "patch_size", "merge_size", "temporal_patch_size",
                            "device", NULL};
    struct request r = {0};
    PyObject *images, *sizes, *table, *out = NULL;
    const char *device;
    const struct ops *ops;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO$Oiiis:preprocess", names, &images, &sizes, &table, &r.rule.patch,
                                     &r.rule.merge, &r.rule.frames, &device))
        return NULL;
    int status = ops_find(&ops, device);
    if (status) return raise_status(status);
    if (!rule_arg(&r, table) && !images_arg(&r, images, sizes)) out = preprocess_request(ops, &r);
    request_free(&r);
    return out;
}

static PyMethodDef functions[] = {
    {"preprocess", (PyCFunction)(void *)py_preprocess, METH_VARARGS | METH_KEYWORDS, preprocess_doc},
    {"smart_resize", py_smart_resize, METH_VARARGS, smart_resize_doc},
    {NULL, NULL, 0, NULL},
};

int add_vision(PyObject *module) { return PyModule_AddFunctions(module, functions); }
