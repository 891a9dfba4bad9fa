#include "py_spec.h"

static const char *const gate_names[] = {[GLU_SILU] = "silu", [GLU_GELU_TANH] = "gelu_tanh"};
enum { GATES = sizeof gate_names / sizeof *gate_names };

static const struct {
    const char *name;
    enum slot slot;
} slot_names[SLOTS] = {
#define P(slot, ...) {#slot, P_##slot},
#include "net/params.def"
#undef P
};

/* Each reader returns -1 with an exception that names the place and the key. `where`: "" or "layer 3: " */

static PyObject *attribute(PyObject *object, const char *where, const char *key) {
    PyObject *value = PyObject_GetAttrString(object, key);
    if (value || !PyErr_ExceptionMatches(PyExc_AttributeError)) return value;
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "spec: %s%s is missing from %.100s", where, key, Py_TYPE(object)->tp_name);
    return NULL;
}

static int read_int(int *out, PyObject *object, const char *where, const char *key) {
    PyObject *value = attribute(object, where, key);
    if (!value) return -1;
    long number = PyLong_Check(value) ? PyLong_AsLong(value) : -1;
    int good = PyLong_Check(value) && !PyErr_Occurred() && number == (int)number;
    PyErr_Clear();
    if (good) *out = (int)number;
    else PyErr_Format(PyExc_TypeError, "spec: %s%s is %R, must be an integer", where, key, value);
    Py_DECREF(value);
    return good ? 0 : -1;
}

static int read_float(float *out, PyObject *object, const char *where, const char *key) {
    PyObject *value = attribute(object, where, key);
    if (!value) return -1;
    double number = PyFloat_AsDouble(value);
    int good = !PyErr_Occurred();
    PyErr_Clear();
    if (good) *out = (float)number;
    else PyErr_Format(PyExc_TypeError, "spec: %s%s is %R, must be a number", where, key, value);
    Py_DECREF(value);
    return good ? 0 : -1;
}

static int read_gate(enum glu_gate *out, PyObject *mlp, const char *where) {
    PyObject *value = attribute(mlp, where, "gate");
    const char *name = value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    int i = 0;
    while (name && i < GATES && strcmp(name, gate_names[i])) i++;
    int good = name && i < GATES;
    if (good) *out = (enum glu_gate)i;
    else if (value) PyErr_Format(PyExc_ValueError, "spec: %sgate is %R, must be 'silu' or 'gelu_tanh'", where, value);
    Py_XDECREF(value);
    return good ? 0 : -1;
}

static int read_layer(struct layer_spec *l, PyObject *object, int index) {
    char where[32];
    snprintf(where, sizeof where, "layer %d: ", index);
    struct attention_spec *a = &l->attention;
    PyObject *attention = attribute(object, where, "attention"), *mlp = attribute(object, where, "mlp");
    int failed =
        !attention || !mlp || read_int(&a->heads, attention, where, "heads") ||
        read_int(&a->kv_heads, attention, where, "kv_heads") || read_int(&a->head_dim, attention, where, "head_dim") ||
        read_int(&a->window, attention, where, "window") || read_int(&a->rope, attention, where, "rope") ||
        read_float(&a->scale, attention, where, "scale") || read_int(&a->qkv_bias, attention, where, "qkv_bias") ||
        read_int(&a->qk_norm, attention, where, "qk_norm") || read_int(&l->mlp.width, mlp, where, "width") ||
        read_gate(&l->mlp.gate, mlp, where) || read_int(&l->post_norms, object, where, "post_norms");
    Py_XDECREF(attention);
    Py_XDECREF(mlp);
    return failed ? -1 : 0;
}

static int read_rope(struct rope_spec *r, PyObject *object, int index) {
    char where[32];
    snprintf(where, sizeof where, "rope %d: inv_freq", index);
    if (read_float(&r->scale, object, "rope: ", "scale")) return -1;
    PyObject *value = attribute(object, "rope: ", "inv_freq");
    PyArrayObject *array = value ? array_arg(value, NPY_FLOAT32, 1, where) : NULL;
    Py_XDECREF(value);
    if (!array) return -1;
    size_t n = (size_t)PyArray_SIZE(array);
    int fits = n <= HEAD_DIM_MAX / 2;
    if (fits) memcpy(r->inv_freq, DATA(float, array), n * sizeof(float));
    else PyErr_Format(PyExc_ValueError, "spec: %s has %zu numbers, at most %d fit", where, n, HEAD_DIM_MAX / 2);
    Py_DECREF(array);
    return fits ? (int)n : -1;
}

/* Every layer that a rope turns must have heads of the width it was made for. */
static int check_rope_width(const struct spec *s, int rope, int n) {
    for (int l = 0; l < s->n_layers; l++) {
        const struct attention_spec *a = &s->layers[l].attention;
        if (a->rope != rope || a->head_dim == 2 * n) continue;
        PyErr_Format(PyExc_ValueError, "spec: layer %d: inv_freq of rope %d has %d numbers, head_dim %d needs %d", l,
                     rope, n, a->head_dim, a->head_dim / 2);
        return -1;
    }
    return 0;
}

static int read_ropes(struct spec *s, PyObject *ropes) {
    for (int i = 0; i < s->n_ropes; i++) {
        int n = read_rope(&s->ropes[i], PySequence_Fast_GET_ITEM(ropes, i), i);
        if (n < 0 || check_rope_width(s, i, n)) return -1;
    }
    return 0;
}

static int copy_name(char *to, PyObject *text, const char *what) {
    const char *utf8 = PyUnicode_Check(text) ? PyUnicode_AsUTF8(text) : NULL;
    if (utf8 && strlen(utf8) < NAME_MAX_BYTES) return strcpy(to, utf8), 0;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "spec: %s must be a text of fewer than %d bytes, not %R", what, NAME_MAX_BYTES,
                 text);
    return -1;
}

/* Names of one slot; as many as the table gives it */
static int read_slot(struct spec *s, PyObject *key, PyObject *pieces) {
    const char *name = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : NULL;
    int i = 0, n = 0;
    while (name && i < SLOTS && strcmp(name, slot_names[i].name)) i++;
    if (!name || i == SLOTS)
        return PyErr_Format(PyExc_ValueError, "spec: names: %R is no slot of the parameter table", key), -1;
    while (n < PIECES && s->names[i][n][0]) n++;
    PyObject *list = PySequence_Fast(pieces, "spec: names must be tuples of texts");
    int failed = !list;
    if (list && PySequence_Fast_GET_SIZE(list) != n)
        failed = (PyErr_Format(PyExc_ValueError, "spec: names: %s has %d pieces, not %zd", name, n,
                               PySequence_Fast_GET_SIZE(list)),
                  1);
    for (int k = 0; k < n && !failed; k++) failed = copy_name(s->names[i][k], PySequence_Fast_GET_ITEM(list, k), name);
    Py_XDECREF(list);
    return failed ? -1 : 0;
}

static int read_names(struct spec *s, PyObject *object) {
    PyObject *names = attribute(object, "", "names"), *items = names ? PyMapping_Items(names) : NULL;
    int failed = !items;
    for (Py_ssize_t i = 0; items && !failed && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        failed = read_slot(s, PyTuple_GET_ITEM(item, 0), PyTuple_GET_ITEM(item, 1));
    }
    Py_XDECREF(items);
    Py_XDECREF(names);
    return failed ? -1 : 0;
}

static int read_layers(struct spec *s, PyObject *layers) {
    for (int i = 0; i < s->n_layers; i++)
        if (read_layer(&s->layers[i], PySequence_Fast_GET_ITEM(layers, i), i)) return -1;
    return 0;
}

static int read_model(struct spec *s, PyObject *object) {
    return read_int(&s->d_model, object, "", "hidden_size") || read_int(&s->vocab_size, object, "", "vocab_size") ||
           read_float(&s->eps, object, "", "eps") || read_float(&s->norm_offset, object, "", "norm_offset") ||
           read_float(&s->embed_scale, object, "", "embed_scale") || read_int(&s->tie, object, "", "tie") ||
           read_int(&s->max_positions, object, "", "max_positions") || read_names(s, object);
}

static PyObject *sequence_of(PyObject *object, const char *key) {
    PyObject *value = attribute(object, "", key);
    PyObject *list = value ? PySequence_Fast(value, "spec: layers and ropes must be tuples") : NULL;
    Py_XDECREF(value);
    return list;
}

int spec_parse(struct spec *out, PyObject *object) {
    *out = (struct spec){0};
    PyObject *layers = sequence_of(object, "layers"), *ropes = layers ? sequence_of(object, "ropes") : NULL;
    int failed = !ropes;
    if (!failed) {
        Py_ssize_t n_layers = PySequence_Fast_GET_SIZE(layers), n_ropes = PySequence_Fast_GET_SIZE(ropes);
        int status = spec_create(out, (int)(n_layers > INT_MAX ? INT_MAX : n_layers),
                                 (int)(n_ropes > INT_MAX ? INT_MAX : n_ropes));
        if (status) raise_status(status);
        failed = status || read_layers(out, layers) || read_model(out, object) || read_ropes(out, ropes);
    }
    Py_XDECREF(layers);
    Py_XDECREF(ropes);
    if (failed) return -1;
    int status = spec_check(out);
    if (status) raise_status(status);
    return status ? -1 : 0;
}
