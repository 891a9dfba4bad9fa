/* grpo._core.Store: activations of rollouts that wait for the update (net/store.h). */
#include "py_model.h"

static PyTypeObject *store_type;     /* set once in add_store */

int store_arg(struct store **store, PyObject *object, const ModelObject *model) {
    *store = NULL;
    if (!object || object == Py_None) return 0;
    if (!PyObject_TypeCheck(object, store_type))
        return PyErr_Format(PyExc_TypeError, "store must be a grpo._core.Store or None, not %.100s",
                            Py_TYPE(object)->tp_name),
               -1;
    StoreObject *self = (StoreObject *)object;
    if (self->model != model) return PyErr_SetString(PyExc_ValueError, "store is of another model"), -1;
    *store = &self->store;
    return 0;
}

static PyObject *Store_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "inputs_only", NULL};
    PyObject *object;
    int inputs_only = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$p:Store", names, &object, &inputs_only)) return NULL;
    ModelObject *model = model_arg(object);
    StoreObject *self = model ? (StoreObject *)type->tp_alloc(type, 0) : NULL;
    if (!self) return NULL;
    self->model = (ModelObject *)Py_NewRef(model);
    store_create(&self->store, model->weights, inputs_only ? STASH_INPUTS : STASH_ALL);
    return (PyObject *)self;
}

static void Store_dealloc(StoreObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (self->model) store_free(&self->store);
    Py_XDECREF(self->model);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nForgets everything; the memory stays for the next rollout.");
static PyObject *Store_clear(StoreObject *self, PyObject *unused) {
    (void)unused;
    if (busy_enter(&self->model->busy)) return NULL;
    store_clear(&self->store);
    self->model->busy = 0;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc,
             "forget($self, ids, /)\n--\n\n"
             "Forgets the groups of these completions (int64 ids from generate(); unknown ones are passed over).");
static PyObject *Store_forget(StoreObject *self, PyObject *arg) {
    PyArrayObject *ids = array_arg(arg, NPY_INT64, 1, "ids");
    if (!ids) return NULL;
    int failed = busy_enter(&self->model->busy);
    if (!failed) {
        store_forget(&self->store, DATA(int64_t, ids), (int)PyArray_SIZE(ids));
        self->model->busy = 0;
    }
    Py_DECREF(ids);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

static PyObject *Store_bytes(StoreObject *self, void *unused) {
    (void)unused;
    return PyLong_FromSize_t(self->store.bytes);
}
static PyObject *Store_groups(StoreObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(self->store.n_groups);
}

static PyMethodDef methods[] = {
    {"clear", (PyCFunction)Store_clear, METH_NOARGS, clear_doc},
    {"forget", (PyCFunction)Store_forget, METH_O, forget_doc},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef getset[] = {
    {"bytes", (getter)Store_bytes, NULL, "memory that it holds", NULL},
    {"groups", (getter)Store_groups, NULL, "groups that are stored", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
PyDoc_STRVAR(store_doc,
             "Store(model, *, inputs_only=False)\n--\n\n"
             "Activations of rollouts that wait for the update. inputs_only: of each layer its input alone, which is\n"
             "all that a Trainer with recompute=True reads.");
static PyType_Slot slots[] = {
    {Py_tp_new, Store_new}, {Py_tp_dealloc, Store_dealloc}, {Py_tp_methods, methods},
    {Py_tp_getset, getset}, {Py_tp_doc, (void *)store_doc}, {0, NULL},
};
static PyType_Spec spec = {"grpo._core.Store", sizeof(StoreObject), 0, Py_TPFLAGS_DEFAULT, slots};

int add_store(PyObject *module) {
    store_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return store_type ? PyModule_AddType(module, store_type) : -1;
}
