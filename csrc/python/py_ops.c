/* Ops: every operation of ops.def as a method on NumPy arrays, for tests and benchmarks. What a method takes and gives
   follows from its entry; the few that OP_BY_HAND marks are described here in the same words. */
#include "py_opcall.h"
#include <structmember.h>

#include "base/float8.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

static int bad_value(const char *what) { return PyErr_Format(PyExc_ValueError, "%s", what), -1; }

/* -- structures of ops.def from the arguments that stand for them -------------------------------------------------- */

/* scale 0: what is usual for the heads' width */
#define BIND_attention_shape \
    BIND_GIVEN(Hq)           \
    BIND_GIVEN(Hkv)          \
    BIND_GIVEN(D) BIND_WHOLE_OPTION(window, 0) BIND_OPTION(scale, 0) BIND_CHOICE_OPTION(sight, 0, SIGHTS)
static const struct attention_shape *attention_shape_of(const struct call *a, struct attention_shape *out) {
    float scale = number_of(a, "scale");
    *out = (struct attention_shape){a->size[DIM_Hq],
                                    a->size[DIM_Hkv],
                                    a->size[DIM_D],
                                    (int)integer_of(a, "window"),
                                    scale ? scale : 1 / sqrtf((float)a->size[DIM_D]),
                                    (enum sight)integer_of(a, "sight")};
    return out;
}

/* no weights: no norm */
#define BIND_head_norm BIND_MAYBE_IN(vector, wq, D) BIND_MAYBE_IN(vector, wk, D) BIND_NUMBER(eps) BIND_OPTION(offset, 0)
static const struct head_norm *head_norm_of(const struct call *a, struct head_norm *out) {
    *out = (struct head_norm){memory_of(a, "wq"), memory_of(a, "wk"), number_of(a, "offset"), number_of(a, "eps")};
    return out->wq ? out : NULL;
}

/* -- the methods of the list --------------------------------------------------------------------------------------- */

static int has(const struct op *op, const char *name) {
    for (const struct op_param *p = op->param; p->name; p++)
        if (!strcmp(p->name, name)) return 1;
    return 0;
}

static int check_taps(const struct call *a) {
    const int32_t *first = DATA(int32_t, array_of(a, "first"));
    int last = a->size[DIM_M] - a->size[DIM_taps];
    for (int n = a->size[DIM_N] - 1; n >= 0; last = first[n--])
        if (first[n] > last) return bad_value("first must ascend to at most M - taps");
    return 0;
}

static int check_patches(const struct call *a) {
    const int *size = a->size;
    if (size[DIM_P] < 1 || size[DIM_T] < 1 || size[DIM_G] < 1) return bad_value("P, T and G must be positive");
    int64_t block = (int64_t)size[DIM_P] * size[DIM_G];
    return size[DIM_H] % block || size[DIM_W] % block ? bad_value("P G must divide H and W") : 0;
}

/* What the shapes of an entry cannot say */
static int check_entry(const struct call *a) {
    const int *size = a->size;
    if (has(a->op, "axis") && size[DIM_axes] != 1 && !array_of(a, "axis"))
        return bad_value("pos of several axes needs axis");
    if (has(a->op, "which") && size[DIM_ropes] != 1 && !array_of(a, "which"))
        return bad_value("inv_freq of several ropes needs which");
    if (has(a->op, "length") && (integer_of(a, "length") < 2 || integer_of(a, "length") > INT32_MAX))
        return bad_value("length must be in [2, 2^31)");
    if (has(a->op, "wq") && !array_of(a, "wq") != !array_of(a, "wk")) return bad_value("wq and wk go together");
    if (has(a->op, "dwq") && array_of(a, "wq") && !(array_of(a, "dwq") && array_of(a, "dwk")))
        return bad_value("a norm's weights need dwq and dwk");
    if (has(a->op, "sight") && integer_of(a, "sight") != SEES_BEFORE && integer_of(a, "window"))
        return bad_value("a window is of rows that see what is before them: sight 0");
    if (has(a->op, "first") && check_taps(a)) return -1;
    if (has(a->op, "G") && check_patches(a)) return -1;
    if (!has(a->op, "row")) return 0;
    uint64_t row = integer_of(a, "row"), O = (uint64_t)size[DIM_O], rows = (uint64_t)size[DIM_rows];
    return row > O || rows > O - row ? bad_value("row and rows leave W") : 0;
}

/* A parameter of ops.def as an argument of op_x() */
#define VALUE(parameter) VALUE_##parameter
#define VALUE_OUT(type, name, ...) , memory_of(a, #name)
#define VALUE_ADD(type, name, ...) , memory_of(a, #name)
#define VALUE_MAYBE_ADD(type, name, ...) , memory_of(a, #name)
#define VALUE_UPDATE(type, name, ...) , memory_of(a, #name)
#define VALUE_HOST_OUT(type, name) , memory_of(a, #name)
#define VALUE_IN(type, name, ...) , memory_of(a, #name)
#define VALUE_MAYBE_IN(type, name, ...) , memory_of(a, #name)
#define VALUE_INDEX(name, ...) , memory_of(a, #name)
#define VALUE_MAYBE_INDEX(name, ...) , memory_of(a, #name)
#define VALUE_SEGMENTS(name, n) , memory_of(a, #name), a->size[DIM_##n]
#define VALUE_STRUCT(type, name) , type##_of(a, &(struct type){0})
#define VALUE_SIZE(name) , a->size[DIM_##name]
#define VALUE_COUNT(name) , (size_t)a->size[DIM_##name]
#define VALUE_INTEGER(name) , (int)integer_of(a, #name)
#define VALUE_NUMBER(name) , number_of(a, #name)
#define VALUE_OPTION(name, usual) , number_of(a, #name)
#define VALUE_CHOICE(type, name, end) , (enum type)integer_of(a, #name)

/* METHOD(name, formula, functions, parameters): the method, which finds its function run_name() */
#define FUNCTIONS(...) __VA_ARGS__
#define NO_CHECK .check = NULL
#define METHOD(name_, formula_, functions_, ...)                                                                  \
    static const struct op method_##name_ = {                                                                     \
        .name = #name_, .formula = formula_, .run = run_##name_, functions_, .param = {EACH(BIND, __VA_ARGS__)}}; \
    static PyObject *py_##name_(PyObject *self, PyObject *args, PyObject *kwargs) {                               \
        return invoke(self, &method_##name_, args, kwargs);                                                       \
    }

#define MEMORY(result, name, parameters)
#define PLAN MEMORY
#define OP(name_, formula_, flops, bytes, ...)                                                                        \
    static int run_##name_(const struct device *d, struct call *a) { return op_##name_(d EACH(VALUE, __VA_ARGS__)); } \
    METHOD(name_, formula_, .check = check_entry, __VA_ARGS__)
#define OP_BY_HAND(...)
#include "ops/ops.def"

/* -- bytes --------------------------------------------------------------------------------------------------------- */

static int run_zero(const struct device *d, struct call *a) {
    return op_zero(d, memory_of(a, "dst"), (size_t)a->size[DIM_n] * sizeof(float));
}
METHOD(zero, "zeros in place of dst", NO_CHECK, ADD(float, dst, n))

static int run_copy(const struct device *d, struct call *a) {
    return op_copy(d, memory_of(a, "dst"), memory_of(a, "src"), (size_t)a->size[DIM_n] * sizeof(float));
}
METHOD(copy, "the bytes of src", NO_CHECK, OUT(float, dst, n), IN(float, src, n))

/* -- decode, with the pool filled as a rollout fills it ------------------------------------------------------------ */

static int check_pages(const struct call *a) {
    const int32_t *place = DATA(int32_t, array_of(a, "place")), *pages = DATA(int32_t, array_of(a, "pages"));
    const int32_t *length = DATA(int32_t, array_of(a, "length"));
    int max_pages = a->size[DIM_max_pages], n_pages = a->size[DIM_n_pages];
    if (integer_of(a, "sight") != SEES_BEFORE) return bad_value("the keys of a pool are what was before: sight 0");
    for (int i = 0; i < a->size[DIM_N]; i++)
        if (place[i] >= n_pages * KV_TILE) return bad_value("place leaves the pool of n_pages");
    for (int s = 0; s < a->size[DIM_S]; s++, pages += max_pages) {
        if (length[s] < 1 || length[s] > max_pages * KV_TILE) return bad_value("length must be in [1, max_pages * 32]");
        for (int p = 0; p < ceil_div(length[s], KV_TILE); p++)
            if (pages[p] < 0 || pages[p] >= n_pages) return bad_value("pages leave the pool of n_pages");
    }
    return 0;
}

/* A pool in use holds stale numbers where nothing was stored yet: bytes 0x42 are 48.5, in both storages. A copied page
   goes on to be written, so the rows are stored before the copies and again after them. */
static int fill_pool(const struct device *d, struct call *a) {
    const int *size = a->size;
    size_t bytes = (size_t)size[DIM_n_pages] * d->ops->kv_page_bytes(size[DIM_Hkv], size[DIM_D]);
    struct attention_shape shape;
    attention_shape_of(a, &shape);
    void *stale = malloc(bytes ? bytes : 1);
    a->pool = device_alloc(d, bytes ? bytes : 1);
    if (stale) memset(stale, 0x42, bytes);
    int status = fail(E_MEMORY, "no memory for %d pages", size[DIM_n_pages]);
    if (stale && a->pool) status = device_upload(d, a->pool, stale, bytes);
    free(stale);
    TRY(status);
    TRY(op_kv_store(d, a->pool, memory_of(a, "kv"), memory_of(a, "place"), size[DIM_N], &shape));
    TRY(op_kv_copy(d, a->pool, memory_of(a, "dst"), memory_of(a, "src"), size[DIM_n_copies], &shape));
    return op_kv_store(d, a->pool, memory_of(a, "kv"), memory_of(a, "place"), size[DIM_N], &shape);
}

static int run_attention_decode(const struct device *d, struct call *a) {
    int max_pages = a->size[DIM_max_pages];
    struct key_pages keys = {memory_of(a, "pages"), memory_of(a, "length"), max_pages, max_pages};
    struct attention_shape shape;
    return op_attention_decode(d, memory_of(a, "y"), memory_of(a, "lse"), memory_of(a, "qkv"), a->pool, &keys,
                               a->size[DIM_S], attention_shape_of(a, &shape));
}

METHOD(attention_decode,
       "y and lse of rows qkv over the keys of a pool of n_pages, which is filled before: kv by kv_store at place, "
       "kv_copy of pages src to dst, kv_store again",
       FUNCTIONS(.check = check_pages, .prepare = fill_pool), OUT(real, y, S, HqD), OUT(float, lse, S, Hq),
       IN(real, qkv, S, QKV), IN(real, kv, N, QKV), IN(int32_t, place, N), INDEX(dst, n_pages, n_copies),
       INDEX(src, n_pages, n_copies), GIVEN(n_pages), IN(int32_t, pages, S, max_pages), IN(int32_t, length, S),
       STRUCT(attention_shape, a))

/* -- the head: alone, and with its backward ------------------------------------------------------------------------ */

static struct head_rows head_rows_of(const struct call *a) {
    return (struct head_rows){.R = a->size[DIM_R],
                              .h = memory_of(a, "h"),
                              .target = memory_of(a, "target"),
                              .logp = memory_of(a, "logp"),
                              .entropy = memory_of(a, "entropy")};
}

static int run_head(const struct device *d, struct call *a) {
    struct head_rows rows = head_rows_of(a);
    return op_head(d, NULL, &rows, memory_of(a, "W"), number_of(a, "inv_temperature"), a->size[DIM_C], a->size[DIM_V]);
}

METHOD(head, "logp = log p[target], entropy = -sum p log p, p = softmax(h W^T inv_temperature)", NO_CHECK,
       OUT(float, logp, R), OUT(float, entropy, R), IN(real, h, R, C), IN(weight, W, V, C), INDEX(target, V, R),
       OPTION(inv_temperature, 1))

static int run_head_bwd(const struct device *d, struct call *a) {
    struct head_rows rows = head_rows_of(a);
    rows.coef = memory_of(a, "coef");
    rows.ecoef = memory_of(a, "ecoef");
    rows.dh = memory_of(a, "dh");
    return op_head(d, memory_of(a, "dW"), &rows, memory_of(a, "W"), number_of(a, "inv_temperature"), a->size[DIM_C],
                   a->size[DIM_V]);
}

METHOD(head_bwd, "head, and dh =, dW += the gradient of sum of coef logp + ecoef entropy", NO_CHECK,
       OUT(float, logp, R), OUT(float, entropy, R), OUT(real, dh, R, C), ADD(float, dW, V, C), IN(real, h, R, C),
       IN(weight, W, V, C), INDEX(target, V, R), IN(float, coef, R), MAYBE_IN(float, ecoef, R),
       OPTION(inv_temperature, 1))

/* -- sampling ------------------------------------------------------------------------------------------------------ */

/* The pool: keys (S), then room for what is drawn (S). */
static int place_keys(const struct device *d, struct call *a) {
    int S = a->size[DIM_S];
    const uint32_t *given = memory_of(a, "keys");                      /* (S, 4) */
    struct sample_key *keys = malloc((size_t)S * sizeof *keys + 1);
    a->pool = device_alloc(d, (size_t)S * (sizeof *keys + sizeof(struct sampled)) + 1);
    if (!keys || !a->pool) {
        free(keys);
        return fail(E_MEMORY, "no memory for %d samples", S);
    }
    uint64_t seed = integer_of(a, "seed");
    uint32_t step = (uint32_t)integer_of(a, "step");
    for (int s = 0; s < S; s++, given += 4)
        keys[s] = (struct sample_key){seed, step, given[0], given[1], given[2], given[3]};
    int status = device_upload(d, a->pool, keys, (size_t)S * sizeof *keys);
    free(keys);
    return status;
}

static int run_sample(const struct device *d, struct call *a) {
    int S = a->size[DIM_S];
    struct sampler sampler = {.temperature = number_of(a, "temperature"),
                              .top_p = number_of(a, "top_p"),
                              .min_p = number_of(a, "min_p"),
                              .repetition_penalty = number_of(a, "repetition_penalty"),
                              .top_k = (int)integer_of(a, "top_k"),
                              .n_stop = max_int(0, a->size[DIM_n_stop]),
                              .stop_ids = memory_of(a, "stop_ids"),
                              .forbidden = memory_of(a, "forbidden")};
    const struct sample_key *keys = a->pool;
    struct sampled *drawn = (struct sampled *)((struct sample_key *)a->pool + S);
    struct sampled *out = malloc((size_t)S * sizeof *out + 1);
    if (!out) return fail(E_MEMORY, "no memory for %d samples", S);
    int status = op_sample(d, drawn, memory_of(a, "next"), memory_of(a, "seen"), memory_of(a, "h"), memory_of(a, "W"),
                           &sampler, keys, S, a->size[DIM_C], a->size[DIM_V]);
    if (!status) status = device_download(d, out, drawn, (size_t)S * sizeof *out);
    int32_t *id = memory_of(a, "id");
    float *logp = memory_of(a, "logp"), *policy_logp = memory_of(a, "policy_logp"), *entropy = memory_of(a, "entropy");
    for (int s = 0; !status && s < S; s++) {
        id[s] = out[s].id;
        logp[s] = out[s].logp;
        policy_logp[s] = out[s].policy_logp;
        entropy[s] = out[s].entropy;
    }
    free(out);
    return status;
}

/* clang-format off */
#define BIND_sampler \
    BIND_OPTION(temperature, 1) \
    BIND_WHOLE_OPTION(top_k, 0) \
    BIND_OPTION(top_p, 1) \
    BIND_OPTION(min_p, 0) \
    BIND_OPTION(repetition_penalty, 1) BIND_MAYBE_IN(uint8_t, forbidden, V) BIND_MAYBE_ADD(uint8_t, seen, S, V) \
        BIND_MAYBE_INDEX(stop_ids, V, n_stop) BIND_WHOLE_OPTION(seed, 0) BIND_WHOLE_OPTION(step, 0)
/* clang-format on */
METHOD(sample,
       "id = a token drawn from softmax(h W^T / temperature) as truncated, with its log-probabilities; keys: prompt, "
       "sample, position, no_stop of each row",
       .prepare = place_keys, HOST_OUT(int32_t, id, S), HOST_OUT(float, logp, S), HOST_OUT(float, policy_logp, S),
       HOST_OUT(float, entropy, S), OUT(int32_t, next, S), IN(real, h, S, C), IN(weight, W, V, C),
       HOST_IN(uint32_t, keys, S, four), STRUCT(sampler, sampler))

/* -- the optimiser: of matrices, of matrices whose moments are float8, of vectors ---------------------------------- */

static int check_moments(const struct call *a) {
    int same = PyArray_TYPE(array_of(a, "m")) == PyArray_TYPE(array_of(a, "v"));
    return same ? 0 : bad_value("m and v must be of one type");
}

static int check_float8(const struct call *a) {
    int O = a->size[DIM_O], C = a->size[DIM_C];
    return a->size[DIM_bytes] == (npy_intp)O * (C + float8_blocks(C))
               ? 0
               : bad_value("m and v must be codes (O, C) and exponents (O, ceil(C / 256))");
}

static int update_weights(const struct device *d, struct call *a, int C) {
    static const enum moment_dtype dtypes[] = {
        [NPY_FLOAT32] = MOMENT_FLOAT32, [NPY_UINT16] = MOMENT_BFLOAT16, [NPY_UINT8] = MOMENT_FLOAT8};
    const PyArrayObject *lower = array_of(a, "lower");
    int split = d->ops->real_size < (int)sizeof(float);
    if (split != (lower != NULL))
        return fail(E_CONFIG, "device '%s' %s lower", d->ops->name, split ? "needs" : "stores float32 and takes no");
    struct adamw p = {.lr = number_of(a, "lr"),
                      .beta1 = number_of(a, "beta1"),
                      .beta2 = number_of(a, "beta2"),
                      .eps = number_of(a, "eps"),
                      .weight_decay = number_of(a, "weight_decay"),
                      .grad_scale = number_of(a, "grad_scale"),
                      .correction1 = number_of(a, "correction1"),
                      .correction2 = number_of(a, "correction2"),
                      .moments = dtypes[PyArray_TYPE(array_of(a, "m"))],
                      .masters = lower && PyArray_TYPE(lower) == NPY_UINT8 ? MASTER_FLOAT24 : MASTER_FLOAT32,
                      .seed = integer_of(a, "seed"),
                      .first = integer_of(a, "first"),
                      .step = (uint32_t)integer_of(a, "step")};
    return op_adamw(d, memory_of(a, "w"), memory_of(a, "lower"), memory_of(a, "m"), memory_of(a, "v"),
                    memory_of(a, "g"), a->size[DIM_O], C, &p);
}

/* no columns: nothing to update; to op_adamw() they would mean a vector */
static int update_matrix(const struct device *d, struct call *a) {
    return a->size[DIM_C] ? update_weights(d, a, a->size[DIM_C]) : OK;
}

static int run_adamw(const struct device *d, struct call *a) { return update_matrix(d, a); }
static int run_adamw_float8(const struct device *d, struct call *a) { return update_matrix(d, a); }
static int run_adamw_vector(const struct device *d, struct call *a) { return update_weights(d, a, 0); }

/* clang-format off */
#define BIND_adamw \
    BIND_NUMBER(lr) \
    BIND_NUMBER(beta1) \
    BIND_NUMBER(beta2) \
    BIND_NUMBER(eps) \
    BIND_NUMBER(weight_decay) BIND_NUMBER(grad_scale) BIND_NUMBER(correction1) BIND_NUMBER(correction2) \
        BIND_WHOLE_OPTION(seed, 0) BIND_WHOLE_OPTION(step, 0) BIND_WHOLE_OPTION(first, 0)
/* clang-format on */
METHOD(adamw,
       "one step of AdamW. lower: uint16, or uint8 (float24 masters), None where the device stores float32; m, v: "
       "float32, or uint16 holding bfloat16 bits",
       .check = check_moments, ADD(weight, w, O, C), MAYBE_ADD(lower, lower, O, C), ADD(moment, m, O, C),
       ADD(moment, v, O, C), IN(float, g, O, C), STRUCT(adamw, p))
METHOD(adamw_float8, "adamw with moments in 8 bits: m, v are codes (O, C) and then exponents (O, ceil(C / 256)), flat",
       .check = check_float8, ADD(weight, w, O, C), MAYBE_ADD(lower, lower, O, C), ADD(uint8_t, m, bytes),
       ADD(uint8_t, v, bytes), IN(float, g, O, C), STRUCT(adamw, p))
METHOD(adamw_vector, "adamw of a vector; w as vector_set() gives it", .check = check_moments, ADD(float, w, O),
       MAYBE_ADD(lower, lower, O), ADD(moment, m, O), ADD(moment, v, O), IN(float, g, O), STRUCT(adamw, p))

/* -- the type ------------------------------------------------------------------------------------------------------ */

static PyObject *philox_static(PyObject *type, PyObject *args) {
    (void)type;
    unsigned long long key;
    unsigned int c[4];
    if (!PyArg_ParseTuple(args, "K(IIII):philox", &key, &c[0], &c[1], &c[2], &c[3])) return NULL;
    struct philox r = philox(key, c[0], c[1], c[2], c[3]);
    return Py_BuildValue("(IIII)", r.x[0], r.x[1], r.x[2], r.x[3]);
}

#define FUNCTION(name_) {&method_##name_, (PyCFunction)(void (*)(void))py_##name_},
static const struct {
    const struct op *op;
    PyCFunction function;
} all_methods[] = {
#define MEMORY(result, name, parameters)
#define PLAN MEMORY
#define OP(name, ...) FUNCTION(name)
#define OP_BY_HAND(...)
#include "ops/ops.def"
    FUNCTION(zero) FUNCTION(copy) FUNCTION(attention_decode) FUNCTION(head) FUNCTION(head_bwd) FUNCTION(sample)
        FUNCTION(adamw) FUNCTION(adamw_float8) FUNCTION(adamw_vector)};
enum { METHODS = sizeof all_methods / sizeof *all_methods };

/* Described when the type is made; philox and the end follow. */
static PyMethodDef methods[METHODS + 2] = {
    [METHODS] = {"philox", philox_static, METH_VARARGS | METH_STATIC,
                 "philox(key, counter, /)\n--\n\n"
                 "The four words of Philox4x32-10 for a 64-bit key and a counter of four words."},
};

static int describe_methods(void) {
    for (int i = 0; i < METHODS; i++) {
        const char *doc = describe(all_methods[i].op);
        if (!doc) return PyErr_NoMemory(), -1;
        methods[i] = (PyMethodDef){all_methods[i].op->name, all_methods[i].function, METH_VARARGS | METH_KEYWORDS, doc};
    }
    return 0;
}

static PyMemberDef members[] = {
    {"repeat", T_INT, offsetof(Ops, repeat), 0, "How often a method runs its operation; sums grow each time."},
    {"seconds", T_DOUBLE, offsetof(Ops, seconds), READONLY, "Of the last operation, the fastest of its repeats."},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *times_get(PyObject *self_, void *unused) {
    (void)unused;
    const Ops *self = (const Ops *)self_;
    PyObject *list = PyList_New(self->n_times);
    for (int i = 0; list && i < self->n_times; i++) {
        PyObject *seconds = PyFloat_FromDouble(self->times[i]);
        if (!seconds) Py_CLEAR(list);
        else PyList_SET_ITEM(list, i, seconds);
    }
    return list;
}

static PyGetSetDef getset[] = {
    {"times", times_get, NULL, "Seconds of each repeat of the last operation, of the first 64.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *ops_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"device", NULL};
    const char *device;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:Ops", names, &device)) return NULL;
    const struct ops *ops;
    int status = ops_find(&ops, device);
    if (status) return raise_status(status);
    Ops *self = (Ops *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->repeat = 1;
    struct device opened;
    status = device_open(&opened, ops);
    if (!status) self->device = opened;
    else {
        raise_status(status);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void ops_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    device_close(&((Ops *)self)->device);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "Ops(device)\n--\n\nEvery operation of ops.def on float32 arrays, rounded to the device's storage."},
    {Py_tp_new, ops_new},
    {Py_tp_dealloc, ops_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, getset},
    {0, NULL},
};
static PyType_Spec spec = {"grpo._core.Ops", sizeof(Ops), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, slots};

int add_ops(PyObject *module) {
    if (!methods[0].ml_name && describe_methods()) return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
