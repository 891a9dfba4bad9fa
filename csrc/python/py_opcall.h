/* How one operation is described so that py_opcall.c can call it from Python: its parameters as data, made from the
   words of ops.def, and a function that hands them over. */
#ifndef GRPO_OPCALL_H
#define GRPO_OPCALL_H

#include "binding.h"
#include "ops/device.h"

/* clang-format off */
enum storage {
    STORAGE_real, STORAGE_float, STORAGE_vector, STORAGE_weight, STORAGE_int32_t, STORAGE_uint8_t, /* backend memory */
    STORAGE_segment,                         /* the same: int32, a row of four numbers a segment */
    STORAGE_lower, STORAGE_moment,           /* the same: uint16 or uint8; float32 or uint16 (bfloat16) */
    HOST_int32_t, HOST_uint32_t, HOST_float, HOST_double,                                /* the NumPy array itself */
    SIZE, INTEGER, NUMBER,                   /* a SIZE binds the dimension in `shape` */
};
enum mode {
    IN, OPTIONAL, OUT,
    ADD, ADD_OPTIONAL,      /* takes the initial array, returns the new one; None: not computed */
    INFERRED,               /* of a size: given only where no array that is given has it */
};

/* The dimensions of ops.def, and those of the hand-written methods; the last nine follow from others, or are fixed. */
#define DIMENSIONS(X) \
    X(N) X(K) X(C) X(O) X(R) X(S) X(V) X(F) X(D) X(Hq) X(Hkv) X(n) X(rows) X(axes) X(ropes) X(n_segments) X(n_copies) \
    X(max_pages) X(n_pages) X(n_stop) X(bytes) X(H) X(W) X(M) X(taps) X(P) X(T) X(G) X(three) X(four) X(levels) \
    X(cells) X(patch) \
    X(twoF) X(halfD) X(HqD) X(QKV)
enum dim {
    DIM_none,
#define X(name) DIM_##name,
    DIMENSIONS(X)
#undef X
    DIMS
};
/* clang-format on */

struct op_param {
    enum storage storage;
    enum mode mode;
    const char *name;
    enum dim shape[3];
    enum dim below;         /* values must lie in [0, this size) */
    int end;                /* an integer must lie in [0, end); 0: any */
    double fallback;        /* of an optional number */
};

/* A parameter of ops.def as data */
#define SHAPE(...) SHAPE_PADDED(__VA_ARGS__, none, none, none)
#define SHAPE_PADDED(a, b, c, ...) {DIM_##a, DIM_##b, DIM_##c}
#define BIND(parameter) BIND_##parameter
#define BIND_OUT(type, name, ...) {STORAGE_##type, OUT, #name, SHAPE(__VA_ARGS__)},
#define BIND_ADD(type, name, ...) {STORAGE_##type, ADD, #name, SHAPE(__VA_ARGS__)},
#define BIND_MAYBE_ADD(type, name, ...) {STORAGE_##type, ADD_OPTIONAL, #name, SHAPE(__VA_ARGS__)},
#define BIND_UPDATE(type, name, ...) {STORAGE_##type, ADD, #name, SHAPE(__VA_ARGS__)},
#define BIND_IN(type, name, ...) {STORAGE_##type, IN, #name, SHAPE(__VA_ARGS__)},
#define BIND_MAYBE_IN(type, name, ...) {STORAGE_##type, OPTIONAL, #name, SHAPE(__VA_ARGS__)},
#define BIND_INDEX(name, end, ...) {STORAGE_int32_t, IN, #name, SHAPE(__VA_ARGS__), .below = DIM_##end},
#define BIND_MAYBE_INDEX(name, end, ...) {STORAGE_int32_t, OPTIONAL, #name, SHAPE(__VA_ARGS__), .below = DIM_##end},
#define BIND_SEGMENTS(name, n) {STORAGE_segment, IN, #name, SHAPE(n, four)},
#define BIND_STRUCT(type, name) BIND_##type
#define BIND_HOST_OUT(type, ...) BIND_HOST_OUT_(type, __VA_ARGS__, none)
#define BIND_HOST_OUT_(type, name, ...) {HOST_##type, OUT, #name, SHAPE(__VA_ARGS__)},
#define BIND_HOST_IN(type, name, ...) {HOST_##type, IN, #name, SHAPE(__VA_ARGS__)},
#define BIND_SIZE(name) {SIZE, INFERRED, #name, SHAPE(name)},
#define BIND_COUNT(name) BIND_SIZE(name)
#define BIND_GIVEN(name) {SIZE, IN, #name, SHAPE(name)},
#define BIND_INTEGER(name) {INTEGER, IN, #name},
#define BIND_NUMBER(name) {NUMBER, IN, #name},
#define BIND_OPTION(name, usual) {NUMBER, OPTIONAL, #name, .fallback = usual},
#define BIND_WHOLE_OPTION(name, usual) {INTEGER, OPTIONAL, #name, .fallback = usual},
#define BIND_CHOICE(type, name, last) {INTEGER, IN, #name, .end = last},
#define BIND_CHOICE_OPTION(name, usual, last) {INTEGER, OPTIONAL, #name, .end = last, .fallback = usual},

enum { MAX_PARAMS = 20, MAX_TIMES = 64 };

struct call;
struct op {
    const char *name, *formula;
    int (*run)(const struct device *d, struct call *a);
    int (*check)(const struct call *a);                    /* what shapes cannot say; raises */
    int (*prepare)(const struct device *d, struct call *a);             /* before the timed call */
    struct op_param param[MAX_PARAMS];
};

typedef struct {
    PyObject_HEAD
    struct device device;
    int busy, repeat;
    double seconds, times[MAX_TIMES];                      /* the fastest; of each repeat, the first MAX_TIMES */
    int n_times;
} Ops;

struct call {
    const struct op *op;
    PyObject *object[MAX_PARAMS];                          /* borrowed arguments; NULL = not given */
    PyArrayObject *array[MAX_PARAMS];                      /* source, or the result of OUT */
    PyArrayObject *result[MAX_PARAMS];                     /* what is returned */
    void *memory[MAX_PARAMS];                              /* backend memory, or the host array's */
    void *pool;                                            /* KV pages, made by prepare() */
    double number[MAX_PARAMS];
    uint64_t integer[MAX_PARAMS];
    int size[DIMS];                                        /* -1: unknown */
};

/* A parameter by its name, which the op must have */
static inline int find(const struct op *op, const char *name) {
    int i = 0;
    while (strcmp(op->param[i].name, name)) i++;
    return i;
}
static inline void *memory_of(const struct call *a, const char *name) { return a->memory[find(a->op, name)]; }
static inline PyArrayObject *array_of(const struct call *a, const char *name) { return a->array[find(a->op, name)]; }
static inline float number_of(const struct call *a, const char *name) { return (float)a->number[find(a->op, name)]; }
static inline uint64_t integer_of(const struct call *a, const char *name) { return a->integer[find(a->op, name)]; }

/* One call: checks shapes, reserves scratch, uploads (rounding to the device's storage), runs without the GIL,
   downloads. Memory of a result is filled with NaN first, so that an element left unwritten shows. */
PyObject *invoke(PyObject *self, const struct op *op, PyObject *args, PyObject *kwargs);

/* "name($self, x, w, eps, offset=0.0)", the formula, what is returned; kept until the process ends, NULL: no memory */
const char *describe(const struct op *op);

#endif
