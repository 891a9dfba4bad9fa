/* How one operation of ops.h is described so that py_opcall.c can call it from Python: its parameters as data (how
   stored, which way, name, shape as size letters) and a function that hands them over. */
#ifndef GRPO_OPCALL_H
#define GRPO_OPCALL_H

#include "binding.h"
#include "ops/ops.h"

enum storage {
    REAL, FLOAT, VECTOR, WEIGHT, INT, BYTE,                /* backend memory                       */
    LOWER, MOMENT,                                         /* the same: uint16 or uint8; float32 or uint16 (bfloat16 bits) */
    HOST_INT, HOST_UINT, HOST_FLOAT, HOST_DOUBLE,          /* the NumPy array itself               */
    SIZE, INTEGER, NUMBER,                                 /* SIZE binds the size letter in `shape` */
};
enum mode {
    IN, OPTIONAL,
    OUT,
    ADD, ADD_OPTIONAL,      /* takes the initial array, returns the new one; None: not computed   */
    SET_OR_ADD,             /* None: a plain result                                                */
};

/* Size letters: N C O R S V F D as in ops.h, H = Hq, K = Hkv, A axes of positions, n segments or pairs, P = max_pages,
   M = pages of a pool, T bytes; derived: Q = (H + 2K) D, Y = H D, G = 2 F, h = D / 2; 4 is four. */
struct op_param {
    enum storage storage;
    enum mode mode;
    const char *name, *shape;
    char below;             /* values must lie in [0, this size) */
    double fallback;        /* of an optional number */
};

enum { MAX_PARAMS = 20, MAX_TIMES = 64 };

struct call;
struct op {
    const char *name;
    int (*run)(const struct ops *o, void *ctx, struct call *a);
    int (*check)(const struct call *a);                    /* what shapes cannot say; raises */
    int (*prepare)(const struct ops *o, void *ctx, struct call *a);     /* before the timed call */
    struct op_param param[MAX_PARAMS];
};

typedef struct {
    PyObject_HEAD
    const struct ops *ops;
    void *ctx;
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
    int size[128];                                         /* by letter, -1 = unknown */
};

static inline int find(const struct op *op, const char *name) {
    int i = 0;
    while (strcmp(op->param[i].name, name)) i++;
    return i;
}

/* One call: checks shapes, reserves scratch, uploads (rounding to the device's storage), runs without the GIL,
   downloads. Memory of a result is filled with NaN first, so that an element left unwritten shows. */
PyObject *invoke(PyObject *self, const struct op *op, PyObject *args, PyObject *kwargs);

#endif
