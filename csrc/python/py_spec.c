#include "py_spec.h"

/* Of an MLP with a gate, and of one without, whose names GELU_KINDS also has */
static const char *const gate_names[] = {[GLU_SILU] = "silu", [GLU_GELU_TANH] = "gelu_tanh"};
static const char *const gelu_names[] = {[GELU_ERF] = "gelu", [GELU_TANH] = "gelu_tanh", [GELU_QUICK] = "quick_gelu"};
static const char *const table_names[] = {[TABLE_BILINEAR] = "bilinear", [TABLE_BICUBIC] = "bicubic"};
static const char *const norm_names[] = {[NORM_RMS] = "rms", [NORM_LAYER] = "layer"};

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

static int read_flag(int *out, PyObject *object, const char *where, const char *key) {
    if (read_int(out, object, where, key)) return -1;
    if (*out == 0 || *out == 1) return 0;
    PyErr_Format(PyExc_ValueError, "spec: %s%s is %d, must be true or false", where, key, *out);
    return -1;
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

/* The place of an attribute's text among n names */
static int read_choice(int *out, PyObject *object, const char *where, const char *key, const char *const *names,
                       int n) {
    PyObject *value = attribute(object, where, key);
    const char *name = value && PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    int i = 0;
    while (name && i < n && strcmp(name, names[i])) i++;
    int good = name && i < n;
    char known[80] = "";
    for (int k = 0; k < n; k++) sprintf(known + strlen(known), "%s'%s'", k ? " or " : "", names[k]);
    if (good) *out = i;
    else if (value) PyErr_Format(PyExc_ValueError, "spec: %s%s is %R, must be %s", where, key, value, known);
    Py_XDECREF(value);
    return good ? 0 : -1;
}

static int read_attention(struct attention_spec *a, PyObject *object, const char *where, enum sight sight) {
    a->sight = sight;
    return read_int(&a->heads, object, where, "heads") || read_int(&a->kv_heads, object, where, "kv_heads") ||
           read_int(&a->head_dim, object, where, "head_dim") || read_int(&a->window, object, where, "window") ||
           read_int(&a->rope, object, where, "rope") || read_float(&a->scale, object, where, "scale") ||
           read_flag(&a->qkv_bias, object, where, "qkv_bias") || read_flag(&a->o_bias, object, where, "o_bias") ||
           read_flag(&a->qk_norm, object, where, "qk_norm") || read_flag(&a->by_window, object, where, "by_window") ||
           read_flag(&a->interleaved, object, where, "interleaved");
}

static int read_mlp(struct mlp_spec *m, PyObject *object, const char *where) {
    return read_int(&m->width, object, where, "width") || read_flag(&m->bias, object, where, "bias") ||
           read_flag(&m->gated, object, where, "gated") ||
           (m->gated ? read_choice(&m->gate, object, where, "gate", gate_names, GLU_GATES)
                     : read_choice(&m->gate, object, where, "gate", gelu_names, GELU_KINDS));
}

static int read_layer(struct layer_spec *l, PyObject *object, int index, int tower) {
    char where[32];
    snprintf(where, sizeof where, "layer %d: ", index);
    PyObject *attention = attribute(object, where, "attention"), *mlp = attribute(object, where, "mlp");
    int failed = !attention || !mlp ||
                 read_attention(&l->attention, attention, where, tower ? SEES_ALL : SEES_BEFORE) ||
                 read_mlp(&l->mlp, mlp, where) || read_flag(&l->post_norms, object, where, "post_norms");
    Py_XDECREF(attention);
    Py_XDECREF(mlp);
    return failed ? -1 : 0;
}

/* A rope's axis of each of n pairs; none: all go by the first */
static int read_axis(struct rope_spec *r, PyObject *object, const char *where, int n) {
    char name[48];
    snprintf(name, sizeof name, "%saxis", where);
    PyObject *value = attribute(object, where, "axis");
    if (!value) return -1;
    PyArrayObject *array = value == Py_None ? NULL : array_arg(value, NPY_INT32, 1, name);
    int failed = value != Py_None && !array;
    Py_DECREF(value);
    if (array && PyArray_SIZE(array) != n)
        failed = (PyErr_Format(PyExc_ValueError, "spec: %s has %zd numbers, inv_freq has %d", name,
                               (Py_ssize_t)PyArray_SIZE(array), n),
                  1);
    for (int j = 0; array && !failed && j < n; j++) r->axis[j] = DATA(int32_t, array)[j];
    Py_XDECREF(array);
    return failed ? -1 : 0;
}

static int read_rope(struct rope_spec *r, PyObject *object, int index) {
    char where[32], name[48];
    snprintf(where, sizeof where, "rope %d: ", index);
    snprintf(name, sizeof name, "%sinv_freq", where);
    if (read_float(&r->scale, object, where, "scale")) return -1;
    PyObject *value = attribute(object, where, "inv_freq");
    PyArrayObject *array = value ? array_arg(value, NPY_FLOAT32, 1, name) : NULL;
    Py_XDECREF(value);
    if (!array) return -1;
    size_t n = (size_t)PyArray_SIZE(array);
    int fits = n <= HEAD_DIM_MAX / 2;
    if (fits) memcpy(r->inv_freq, DATA(float, array), n * sizeof(float));
    else PyErr_Format(PyExc_ValueError, "spec: %s has %zu numbers, at most %d fit", name, n, HEAD_DIM_MAX / 2);
    Py_DECREF(array);
    return fits && !read_axis(r, object, where, (int)n) ? (int)n : -1;
}

/* Every layer that a rope turns must have heads of the width it was made for; where ropes stretch, also those of the
   ropes before it. */
static int check_rope_width(const struct spec *s, int rope, int n) {
    for (int l = 0; l < s->n_layers; l++) {
        const struct attention_spec *a = &s->layers[l].attention;
        int turns = s->stretch_after > 0 ? a->rope <= rope : a->rope == rope;
        if (!turns || a->head_dim == 2 * n) continue;
        PyErr_Format(PyExc_ValueError, "spec: layer %d: inv_freq of rope %d has %d numbers, head_dim %d needs %d", l,
                     rope, n, a->head_dim, a->head_dim / 2);
        return -1;
    }
    return 0;
}

static int read_ropes(struct spec *s, PyObject *ropes) {
    for (int i = 0; i < s->n_ropes; i++) {
        int n = read_rope(&s->ropes[i], PyTuple_GET_ITEM(ropes, i), i);
        if (n < 0 || check_rope_width(s, i, n)) return -1;
    }
    return 0;
}

static int copy_name(char *to, PyObject *text, const char *what) {
    Py_ssize_t bytes = 0;
    const char *utf8 = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &bytes) : NULL;
    if (utf8 && bytes > 0 && bytes < NAME_MAX_BYTES && strlen(utf8) == (size_t)bytes) return strcpy(to, utf8), 0;
    PyErr_Clear();
    PyErr_Format(PyExc_ValueError, "spec: %s must be a text of 1 to %d bytes, none of them 0, not %R", what,
                 NAME_MAX_BYTES - 1, text);
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
    PyObject *list = PySequence_Tuple(pieces);
    int failed = !list;
    if (failed && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "spec: names: %s must be a tuple of texts, not %.100s", name,
                     Py_TYPE(pieces)->tp_name);
    int one = list && PyTuple_GET_SIZE(list) == 1;       /* tensor that holds all pieces */
    if (list && !one && PyTuple_GET_SIZE(list) != n)
        failed =
            (PyErr_Format(PyExc_ValueError, "spec: names: %s has %d pieces, not %zd", name, n, PyTuple_GET_SIZE(list)),
             1);
    for (int k = 1; k < n && one; k++) s->names[i][k][0] = 0;
    n = one ? 1 : n;
    for (int k = 0; k < n && !failed; k++) failed = copy_name(s->names[i][k], PyTuple_GET_ITEM(list, k), name);
    Py_XDECREF(list);
    return failed ? -1 : 0;
}

static int read_names(struct spec *s, PyObject *object) {
    PyObject *names = attribute(object, "", "names"), *copy = names ? PyDict_New() : NULL, *slot, *pieces;
    Py_ssize_t at = 0;
    int failed = !copy;
    if (copy && (!PyMapping_Check(names) || PyDict_Update(copy, names))) {
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Format(PyExc_TypeError, "spec: names must be a mapping of slots to tuples of texts, not %.100s",
                         Py_TYPE(names)->tp_name);
        failed = 1;
    }
    while (!failed && PyDict_Next(copy, &at, &slot, &pieces)) failed = read_slot(s, slot, pieces);
    Py_XDECREF(copy);
    Py_XDECREF(names);
    return failed ? -1 : 0;
}

static int read_layers(struct spec *s, PyObject *layers, int tower) {
    for (int i = 0; i < s->n_layers; i++)
        if (read_layer(&s->layers[i], PyTuple_GET_ITEM(layers, i), i, tower)) return -1;
    return 0;
}

/* A tuple of its own: reading an item may run Python code that changes the sequence. */
static PyObject *sequence_of(PyObject *object, const char *key) {
    PyObject *value = attribute(object, "", key), *items = value ? PySequence_Tuple(value) : NULL;
    if (value && !items && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "spec: %s must be a tuple, not %.100s", key, Py_TYPE(value)->tp_name);
    Py_XDECREF(value);
    return items;
}

/* A text of the object that is a prefix of names; it may be empty */
static int read_prefix(char *to, PyObject *object, const char *key) {
    PyObject *value = attribute(object, "", key);
    int empty = value && PyUnicode_Check(value) && !PyUnicode_GET_LENGTH(value);
    int failed = !value || (!empty && copy_name(to, value, key));
    if (empty) *to = 0;
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

static int read_network(struct spec *s, PyObject *object) {
    return read_int(&s->d_model, object, "", "hidden_size") || read_float(&s->eps, object, "", "eps") ||
           read_int(&s->axes, object, "", "axes") || read_prefix(s->prefix, object, "prefix") ||
           read_prefix(s->layer_prefix, object, "layer_prefix") || read_names(s, object);
}

static int read_text(struct spec *s, PyObject *object) {
    return read_int(&s->vocab_size, object, "", "vocab_size") ||
           read_float(&s->norm_offset, object, "", "norm_offset") ||
           read_float(&s->embed_scale, object, "", "embed_scale") || read_flag(&s->tie, object, "", "tie") ||
           read_int(&s->max_positions, object, "", "max_positions") ||
           read_int(&s->stretch_after, object, "", "stretch_after") || read_int(&s->log_after, object, "", "log_after");
}

static int read_merger(struct spec *s, PyObject *object, int k) {
    struct merger_spec *m = &s->vision.mergers[k];
    char where[32];
    snprintf(where, sizeof where, "merger %d: ", k);
    return read_int(&m->after, object, where, "after") || read_flag(&m->joined, object, where, "joined") ||
           read_prefix(s->merger_prefix[k], object, "prefix");
}

static int read_mergers(struct spec *s, PyObject *object) {
    PyObject *mergers = sequence_of(object, "mergers");
    Py_ssize_t n = mergers ? PyTuple_GET_SIZE(mergers) : 0;
    int failed = !mergers;
    if (n > MERGERS_MAX)
        failed = (PyErr_Format(PyExc_ValueError, "spec: %zd mergers, at most %d fit", n, MERGERS_MAX), 1);
    for (int k = 0; k < n && !failed; k++) failed = read_merger(s, PyTuple_GET_ITEM(mergers, k), k);
    s->vision.n_mergers = failed ? 0 : (int)n;
    Py_XDECREF(mergers);
    return failed ? -1 : 0;
}

static int read_resampler(struct vision_spec *v, PyObject *object) {
    PyObject *resampler = attribute(object, "", "resampler"), *attention = NULL;
    int failed = !resampler;
    if (!failed && resampler != Py_None) {
        attention = attribute(resampler, "resampler: ", "attention");
        failed = !attention || read_int(&v->queries, resampler, "resampler: ", "queries") ||
                 read_attention(&v->pool, attention, "resampler: ", SEES_PREFIX);
        if (!failed && v->queries < 1)
            failed = (PyErr_Format(PyExc_ValueError, "spec: resampler: %d queries", v->queries), 1);
    }
    Py_XDECREF(attention);
    Py_XDECREF(resampler);
    return failed ? -1 : 0;
}

static int read_patch(struct vision_spec *v, PyObject *object) {
    PyObject *shape = sequence_of(object, "patch_shape");
    int failed = !shape || !PyArg_ParseTuple(shape, "iiii:patch_shape", &v->patch_shape[0], &v->patch_shape[1],
                                             &v->patch_shape[2], &v->patch_shape[3]);
    Py_XDECREF(shape);
    if (!failed && v->patch_shape[0] < 1)
        failed = (PyErr_Format(PyExc_ValueError, "spec: patch_shape begins with %d channels", v->patch_shape[0]), 1);
    return failed || read_flag(&v->patch_bias, object, "", "patch_bias") || read_flag(&v->still, object, "", "still")
               ? -1
               : 0;
}

static int read_tower(struct spec *s, PyObject *object) {
    struct vision_spec *v = &s->vision;
    int norm = 0, gelu = 0, table = 0;
    int failed =
        read_patch(v, object) || read_int(&v->side, object, "", "side") ||
        read_int(&v->grid_side, object, "", "grid_side") || read_int(&v->table_side, object, "", "table_side") ||
        read_choice(&table, object, "", "table", table_names, TABLE_KINDS) ||
        read_flag(&v->entry_norm, object, "", "entry_norm") || read_int(&v->window, object, "", "window") ||
        read_int(&v->out, object, "", "out") || read_choice(&norm, object, "", "norm", norm_names, NORM_KINDS) ||
        read_choice(&gelu, object, "", "gelu", gelu_names, GELU_KINDS) || read_mergers(s, object) ||
        read_resampler(v, object);
    s->norm = (enum norm_kind)norm;
    v->gelu = (enum gelu_kind)gelu;
    v->table = (enum table_kind)table;
    return failed ? -1 : 0;
}

/* tower: of a tower, not of a text */
static int parse(struct spec *out, PyObject *object, int tower) {
    *out = (struct spec){0};
    PyObject *layers = sequence_of(object, "layers"), *ropes = layers ? sequence_of(object, "ropes") : NULL;
    int failed = !ropes;
    if (!failed) {
        Py_ssize_t n_layers = PyTuple_GET_SIZE(layers), n_ropes = PyTuple_GET_SIZE(ropes);
        int status = spec_create(out, (int)(n_layers > INT_MAX ? INT_MAX : n_layers),
                                 (int)(n_ropes > INT_MAX ? INT_MAX : n_ropes));
        if (status) raise_status(status);
        failed = status || read_layers(out, layers, tower) || read_network(out, object) ||
                 (tower ? read_tower(out, object) : read_text(out, object)) || read_ropes(out, ropes);
    }
    Py_XDECREF(layers);
    Py_XDECREF(ropes);
    if (failed) return -1;
    int status = spec_check(out);
    if (status) raise_status(status);
    return status ? -1 : 0;
}

int spec_parse(struct spec *out, PyObject *object) { return parse(out, object, 0); }

int tower_parse(struct spec *out, int *has_tower, PyObject *object) {
    PyObject *vision = attribute(object, "", "vision");
    *out = (struct spec){0};
    *has_tower = vision && vision != Py_None;
    int failed = !vision || (*has_tower && parse(out, vision, 1));
    Py_XDECREF(vision);
    return failed ? -1 : 0;
}
