/* Ops: every entry of ops.h as a method on NumPy arrays, for tests and benchmarks. A method is one OP(...): text,
   call, parameters; invoke() does the rest for all of them. */
#include "py_opcall.h"
#include <structmember.h>

#include "base/float8.h"
#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

/* -- what some operations need beyond the parameter list ----------------------------------------------------------- */

#define P(name) a->memory[find(a->op, #name)]
#define X(name) (float)a->number[find(a->op, #name)]
#define WHOLE(name) (int)a->integer[find(a->op, #name)]
#define GIVEN(name) (a->array[find(a->op, #name)] != NULL)
#define VALUES(name) DATA(int32_t, a->array[find(a->op, #name)])

static int bad_value(const char *what) { return PyErr_Format(PyExc_ValueError, "%s", what), -1; }

static int check_weight_rows(const struct call *a) {
    uint64_t row = a->integer[find(a->op, "row")], O = (uint64_t)a->size['O'], rows = (uint64_t)a->size['R'];
    return row > O || rows > O - row ? bad_value("row and rows leave W") : 0;
}

static int check_axes(const struct call *a) {
    return a->size['A'] == 1 || GIVEN(axis) ? 0 : bad_value("pos of several axes needs axis");
}

static int check_gelu(const struct call *a) {
    return a->integer[find(a->op, "kind")] <= GELU_QUICK ? 0 : bad_value("kind must be 0 (erf), 1 (tanh) or 2 (quick)");
}

static int check_gate(const struct call *a) {
    return a->integer[find(a->op, "gate")] <= GLU_GELU_TANH ? 0 : bad_value("gate must be 0 (silu) or 1 (gelu_tanh)");
}

static int check_segments(const struct call *a) {
    const struct segment *s = (const struct segment *)VALUES(segments);
    for (int i = 0; i < a->size['n']; i++, s++)
        if (s->start < 0 || s->len < 0 || s->prefix < 0 || s->prefix_len < 0 || s->start > a->size['N'] - s->len ||
            s->prefix > a->size['N'] - s->prefix_len)
            return bad_value("segments leave the rows of qkv");
    return 0;
}

static int check_pages(const struct call *a) {
    const int32_t *place = VALUES(place), *pages = VALUES(pages), *length = VALUES(length);
    for (int i = 0; i < a->size['N']; i++)
        if (place[i] >= a->size['M'] * KV_TILE) return bad_value("place leaves the pool of n_pages");
    for (int s = 0; s < a->size['S']; s++) {
        if (length[s] < 1 || length[s] > a->size['P'] * KV_TILE)
            return bad_value("length must be in [1, max_pages * 32]");
        for (int p = 0; p < ceil_div(length[s], KV_TILE); p++) {
            int page = pages[s * a->size['P'] + p];
            if (page < 0 || page >= a->size['M']) return bad_value("pages leave the pool of n_pages");
        }
    }
    return 0;
}

/* scale 0: that of the head's width */
static struct attention_shape shape_of(const struct call *a) {
    float scale = X(scale);
    return (struct attention_shape){a->size['H'], a->size['K'], a->size['D'], WHOLE(window),
                                    scale ? scale : 1 / sqrtf((float)a->size['D'])};
}

static int decode_rows(const struct ops *o, void *ctx, struct call *a) {
    int P = a->size['P'];
    struct key_pages keys = {P(pages), P(length), P, P};
    struct attention_shape shape = shape_of(a);
    return o->attention_decode(ctx, P(y), P(lse), P(qkv), a->pool, &keys, a->size['S'], &shape);
}

/* A pool in use holds stale numbers where nothing was stored yet: bytes 0x42 are 48.5, in both storages. A copied page
   goes on to be written, so the rows are stored before the copies and again after them. */
static int fill_pool(const struct ops *o, void *ctx, struct call *a) {
    const int *d = a->size;
    size_t bytes = (size_t)d['M'] * o->kv_page_bytes(d['K'], d['D']);
    void *stale = malloc(bytes ? bytes : 1);
    a->pool = o->alloc(ctx, bytes ? bytes : 1);
    if (stale) memset(stale, 0x42, bytes);
    int status = fail(E_MEMORY, "no memory for %d pages", d['M']);
    if (stale && a->pool) status = o->upload(ctx, a->pool, stale, bytes);
    free(stale);
    TRY(status);
    struct attention_shape shape = shape_of(a);
    TRY(o->kv_store(ctx, a->pool, P(kv), P(place), d['N'], &shape));
    TRY(o->kv_copy(ctx, a->pool, P(dst), P(src), d['n'], &shape));
    return o->kv_store(ctx, a->pool, P(kv), P(place), d['N'], &shape);
}

/* The pool: keys (S), then room for what is drawn (S). */
static int place_keys(const struct ops *o, void *ctx, struct call *a) {
    int S = a->size['S'];
    const uint32_t *given = P(keys);                       /* (S, 4) */
    struct sample_key *keys = malloc((size_t)S * sizeof *keys + 1);
    a->pool = o->alloc(ctx, (size_t)S * (sizeof *keys + sizeof(struct sampled)) + 1);
    if (!keys || !a->pool) {
        free(keys);
        return fail(E_MEMORY, "no memory for %d samples", S);
    }
    for (int s = 0; s < S; s++, given += 4)
        keys[s] = (struct sample_key){a->integer[find(a->op, "seed")], (uint32_t)WHOLE(step), given[0], given[1], given[2], given[3]};
    int status = o->upload(ctx, a->pool, keys, (size_t)S * sizeof *keys);
    free(keys);
    return status;
}

static int sample_rows(const struct ops *o, void *ctx, struct call *a) {
    const int *d = a->size;
    int S = d['S'];
    struct sampler sampler = {X(temperature), X(top_p), X(min_p), X(repetition_penalty), WHOLE(top_k), max_int(0, d['s']), P(stop_ids),
                              P(forbidden)};
    const struct sample_key *keys = a->pool;
    struct sampled *drawn = (struct sampled *)((struct sample_key *)a->pool + S), *out = malloc((size_t)S * sizeof *out + 1);
    if (!out) return fail(E_MEMORY, "no memory for %d samples", S);
    int status = o->sample(ctx, drawn, P(next), P(seen), P(h), P(W), &sampler, keys, S, d['C'], d['V']);
    if (!status) status = o->download(ctx, out, drawn, (size_t)S * sizeof *out);
    for (int s = 0; !status && s < S; s++) {
        ((int32_t *)P(id))[s] = out[s].id;
        ((float *)P(logp))[s] = out[s].logp;
        ((float *)P(policy_logp))[s] = out[s].policy_logp;
        ((float *)P(entropy))[s] = out[s].entropy;
    }
    free(out);
    return status;
}

static int check_moments(const struct call *a) {
    int same = PyArray_TYPE(a->array[find(a->op, "m")]) == PyArray_TYPE(a->array[find(a->op, "v")]);
    return same ? 0 : bad_value("m and v must be of one type");
}

static int check_float8(const struct call *a) {
    const int *d = a->size;
    return d['T'] == (npy_intp)d['O'] * (d['C'] + float8_blocks(d['C'])) ? 0 : bad_value("m and v must be codes (O, C) and exponents (O, ceil(C / 256))");
}

static int update_weights(const struct ops *o, void *ctx, struct call *a, int O, int C) {
    static const enum moment_dtype dtypes[] = {[NPY_FLOAT32] = MOMENT_FLOAT32, [NPY_UINT16] = MOMENT_BFLOAT16, [NPY_UINT8] = MOMENT_FLOAT8};
    int split = o->real_size < (int)sizeof(float);
    if (split != GIVEN(lower)) return fail(E_CONFIG, "device '%s' %s lower", o->name, split ? "needs" : "stores float32 and takes no");
    const PyArrayObject *lower = a->array[find(a->op, "lower")];
    struct adamw p = {.lr = X(lr), .beta1 = X(beta1), .beta2 = X(beta2), .eps = X(eps), .weight_decay = X(weight_decay),
                      .grad_scale = X(grad_scale), .correction1 = X(correction1), .correction2 = X(correction2),
                      .moments = dtypes[PyArray_TYPE(a->array[find(a->op, "m")])],
                      .masters = lower && PyArray_TYPE(lower) == NPY_UINT8 ? MASTER_FLOAT24 : MASTER_FLOAT32, .seed = a->integer[find(a->op, "seed")],
                      .first = a->integer[find(a->op, "first")], .step = (uint32_t)WHOLE(step)};
    return o->adamw(ctx, P(w), P(lower), P(m), P(v), P(g), O, C, &p);
}

/* -- the operations ------------------------------------------------------------------------------------------------ */

/* OP(name, doc, call, parameters, then optional .check and .prepare). In `call`: P(x) memory, X(x) float, WHOLE(x) int,
   d['N'] size. */
#define OP(name_, text_, call_, params_, ...)                                                                        \
    static const char doc_##name_[] = text_;                                                                         \
    static int run_##name_(const struct ops *o, void *ctx, struct call *a) {                                         \
        const int *d = a->size;                                                                                      \
        (void)d;                                                                                                     \
        return call_;                                                                                                \
    }                                                                                                                \
    static const struct op op_##name_ = {.name = #name_, .run = run_##name_, .param = {UNWRAP params_}, __VA_ARGS__};\
    static PyObject *py_##name_(PyObject *self, PyObject *args, PyObject *kwargs) {                                  \
        return invoke(self, &op_##name_, args, kwargs);                                                              \
    }
#define UNWRAP(...) __VA_ARGS__
#define HEADS {SIZE, IN, "Hq", "H"}, {SIZE, IN, "Hkv", "K"}, {SIZE, IN, "D", "D"}
#define SHAPE HEADS, {INTEGER, OPTIONAL, "window", ""}, {NUMBER, OPTIONAL, "scale", ""}
#define ROPE_HEADS &(struct attention_shape){d['H'], d['K'], d['D'], 0, 1}
#define NORM P(wq) ? &(struct head_norm){P(wq), P(wk), X(offset), X(eps)} : NULL

OP(zero, "zero($self, dst)\n--\n\n(L) zeros in place of dst.",
   o->zero(ctx, P(dst), (size_t)d['L'] * sizeof(float)),
   ({FLOAT, ADD, "dst", "L"}))
OP(copy, "copy($self, src)\n--\n\nThe bytes of src (L).",
   o->copy(ctx, P(dst), P(src), (size_t)d['L'] * sizeof(float)),
   ({FLOAT, OUT, "dst", "L"}, {FLOAT, IN, "src", "L"}))
OP(weight_set, "weight_set($self, W, src, row)\n--\n\nW (O, C) with src (rows, C) in its rows from `row` on.",
   o->weight_set(ctx, P(W), P(src), WHOLE(row), d['R'], d['O'], d['C']),
   ({WEIGHT, ADD, "W", "OC"}, {FLOAT, IN, "src", "RC"}, {INTEGER, IN, "row", ""}),
   .check = check_weight_rows)
OP(weight_get, "weight_get($self, W, row, rows)\n--\n\nRows [row, row + rows) of W (O, C).",
   o->weight_get(ctx, P(dst), P(W), WHOLE(row), d['R'], d['O'], d['C']),
   ({FLOAT, OUT, "dst", "RC"}, {WEIGHT, IN, "W", "OC"}, {INTEGER, IN, "row", ""}, {SIZE, IN, "rows", "R"}),
   .check = check_weight_rows)
OP(vector_set, "vector_set($self, src)\n--\n\nsrc (L) rounded to the storage of vectors.",
   o->vector_set(ctx, P(dst), P(src), d['L']),
   ({FLOAT, OUT, "dst", "L"}, {FLOAT, IN, "src", "L"}))
OP(cast, "cast($self, src)\n--\n\nsrc (L) rounded to the storage of activations, and back by uncast().",
   o->cast(ctx, P(dst), P(src), (size_t)d['L']),
   ({REAL, OUT, "dst", "L"}, {FLOAT, IN, "src", "L"}))
OP(embed, "embed($self, E, ids, scale=1.0)\n--\n\n(N, C): scale times rows ids (N) of E (V, C).",
   o->embed(ctx, P(y), P(E), P(ids), X(scale), d['N'], d['C'], d['V']),
   ({REAL, OUT, "y", "NC"}, {WEIGHT, IN, "E", "VC"}, {INT, IN, "ids", "N", 'V'}, {NUMBER, OPTIONAL, "scale", "", .fallback = 1}))
OP(embed_dw, "embed_dw($self, dE, dy, ids, scale=1.0)\n--\n\ndE (V, C) + scale dy (N, C) scattered to rows ids.",
   o->embed_dw(ctx, P(dE), P(dy), P(ids), X(scale), d['N'], d['C'], d['V']),
   ({FLOAT, ADD, "dE", "VC"}, {REAL, IN, "dy", "NC"}, {INT, IN, "ids", "N", 'V'}, {NUMBER, OPTIONAL, "scale", "", .fallback = 1}))
OP(linear, "linear($self, x, W, b=None)\n--\n\n(N, O): x (N, C) W^T + b.",
   o->linear(ctx, P(y), P(x), P(W), P(b), d['N'], d['C'], d['O']),
   ({REAL, OUT, "y", "NO"}, {REAL, IN, "x", "NC"}, {WEIGHT, IN, "W", "OC"}, {VECTOR, OPTIONAL, "b", "O"}))
OP(linear_add, "linear_add($self, y, x, W, b=None)\n--\n\ny (N, O) + x (N, C) W^T + b, rounded once.",
   o->linear_add(ctx, P(y), P(x), P(W), P(b), d['N'], d['C'], d['O']),
   ({REAL, ADD, "y", "NO"}, {REAL, IN, "x", "NC"}, {WEIGHT, IN, "W", "OC"}, {VECTOR, OPTIONAL, "b", "O"}))
OP(linear_dx, "linear_dx($self, dy, W)\n--\n\n(N, C): dy (N, O) W (O, C).",
   o->linear_dx(ctx, P(dx), P(dy), P(W), d['N'], d['C'], d['O']),
   ({REAL, OUT, "dx", "NC"}, {REAL, IN, "dy", "NO"}, {WEIGHT, IN, "W", "OC"}))
OP(linear_dw, "linear_dw($self, dW, db, dy, x)\n--\n\ndW (O, C) + dy^T x, and db (O) + sum of dy unless db is None.",
   o->linear_dw(ctx, P(dW), P(db), P(dy), P(x), d['N'], d['C'], d['O']),
   ({FLOAT, ADD, "dW", "OC"}, {FLOAT, ADD_OPTIONAL, "db", "O"}, {REAL, IN, "dy", "NO"}, {REAL, IN, "x", "NC"}))
OP(rmsnorm, "rmsnorm($self, x, w, eps, offset=0.0)\n--\n\n(y (N, C), rstd (N)).",
   o->rmsnorm(ctx, P(y), P(rstd), P(x), P(w), X(offset), X(eps), d['N'], d['C']),
   ({REAL, OUT, "y", "NC"}, {FLOAT, OUT, "rstd", "N"}, {REAL, IN, "x", "NC"}, {VECTOR, IN, "w", "C"},
    {NUMBER, IN, "eps", ""}, {NUMBER, OPTIONAL, "offset", ""}))
OP(rmsnorm_add, "rmsnorm_add($self, y, x, w, eps, offset=0.0)\n--\n\n(y (N, C) added to, rstd (N)).",
   o->rmsnorm_add(ctx, P(y), P(rstd), P(x), P(w), X(offset), X(eps), d['N'], d['C']),
   ({REAL, ADD, "y", "NC"}, {FLOAT, OUT, "rstd", "N"}, {REAL, IN, "x", "NC"}, {VECTOR, IN, "w", "C"},
    {NUMBER, IN, "eps", ""}, {NUMBER, OPTIONAL, "offset", ""}))
OP(rmsnorm_bwd_add, "rmsnorm_bwd_add($self, dx, dw, dy, x, w, rstd, offset=0.0)\n--\n\n(dx (N, C), dw (C)), both added to.",
   o->rmsnorm_bwd_add(ctx, P(dx), P(dw), P(dy), P(x), P(w), X(offset), P(rstd), d['N'], d['C']),
   ({REAL, ADD, "dx", "NC"}, {FLOAT, ADD, "dw", "C"}, {REAL, IN, "dy", "NC"}, {REAL, IN, "x", "NC"},
    {VECTOR, IN, "w", "C"}, {FLOAT, IN, "rstd", "N"}, {NUMBER, OPTIONAL, "offset", ""}))
OP(layernorm, "layernorm($self, x, w, b, eps)\n--\n\n(y (N, C), mean (N), rstd (N)).",
   o->layernorm(ctx, P(y), P(mean), P(rstd), P(x), P(w), P(b), X(eps), d['N'], d['C']),
   ({REAL, OUT, "y", "NC"}, {FLOAT, OUT, "mean", "N"}, {FLOAT, OUT, "rstd", "N"}, {REAL, IN, "x", "NC"}, {VECTOR, IN, "w", "C"},
    {VECTOR, IN, "b", "C"}, {NUMBER, IN, "eps", ""}))
OP(layernorm_bwd_add, "layernorm_bwd_add($self, dx, dw, db, dy, x, w, mean, rstd)\n--\n\n(dx (N, C), dw (C), db (C)), all added to.",
   o->layernorm_bwd_add(ctx, P(dx), P(dw), P(db), P(dy), P(x), P(w), P(mean), P(rstd), d['N'], d['C']),
   ({REAL, ADD, "dx", "NC"}, {FLOAT, ADD, "dw", "C"}, {FLOAT, ADD, "db", "C"}, {REAL, IN, "dy", "NC"}, {REAL, IN, "x", "NC"},
    {VECTOR, IN, "w", "C"}, {FLOAT, IN, "mean", "N"}, {FLOAT, IN, "rstd", "N"}))
OP(rope_table, "rope_table($self, pos, inv_freq, axis=None, scale=1.0)\n--\n\n"
   "(cos, sin), both (N, D/2), of row axis[j] of pos (axes, N) times inv_freq (D/2); axis: (D/2), None where there is one.",
   o->rope_table(ctx, P(cos), P(sin), P(pos), P(inv_freq), P(axis), X(scale), d['N'], d['D']),
   ({FLOAT, OUT, "cos", "Nh"}, {FLOAT, OUT, "sin", "Nh"}, {INT, IN, "pos", "AN"}, {FLOAT, IN, "inv_freq", "h"},
    {INT, OPTIONAL, "axis", "h", 'A'}, {NUMBER, OPTIONAL, "scale", "", .fallback = 1}), .check = check_axes)
OP(rope, "rope($self, x, wq, wk, eps, cos, sin, Hq, Hkv, D, offset=0.0)\n--\n\n(N, (Hq + 2 Hkv) D); wq, wk: (D) or None.",
   o->rope(ctx, P(y), P(x), NORM, P(cos), P(sin), d['N'], ROPE_HEADS),
   ({REAL, OUT, "y", "NQ"}, {REAL, IN, "x", "NQ"}, {VECTOR, OPTIONAL, "wq", "D"}, {VECTOR, OPTIONAL, "wk", "D"},
    {NUMBER, IN, "eps", ""}, {FLOAT, IN, "cos", "Nh"}, {FLOAT, IN, "sin", "Nh"}, HEADS, {NUMBER, OPTIONAL, "offset", ""}))
OP(rope_bwd, "rope_bwd($self, d, dwq, dwk, x, wq, wk, eps, cos, sin, Hq, Hkv, D, offset=0.0)\n--\n\n"
   "d (N, (Hq + 2 Hkv) D) turned to the gradient of x, then dwq, dwk (D) added to, unless None.",
   o->rope_bwd(ctx, P(d), P(dwq), P(dwk), P(x), NORM, P(cos), P(sin), d['N'], ROPE_HEADS),
   ({REAL, ADD, "d", "NQ"}, {FLOAT, ADD_OPTIONAL, "dwq", "D"}, {FLOAT, ADD_OPTIONAL, "dwk", "D"}, {REAL, IN, "x", "NQ"},
    {VECTOR, OPTIONAL, "wq", "D"}, {VECTOR, OPTIONAL, "wk", "D"}, {NUMBER, IN, "eps", ""}, {FLOAT, IN, "cos", "Nh"},
    {FLOAT, IN, "sin", "Nh"}, HEADS, {NUMBER, OPTIONAL, "offset", ""}))
OP(attention, "attention($self, qkv, segments, Hq, Hkv, D, window=0, scale=None)\n--\n\n(y (N, Hq D), lse (N, Hq)); segments: int32 (n, 4).",
   o->attention(ctx, P(y), P(lse), P(qkv), P(segments), d['n'], d['N'], (struct attention_shape[]){shape_of(a)}),
   ({REAL, OUT, "y", "NY"}, {FLOAT, OUT, "lse", "NH"}, {REAL, IN, "qkv", "NQ"}, {INT, IN, "segments", "n4"}, SHAPE),
   .check = check_segments)
OP(attention_bwd, "attention_bwd($self, dy, y, lse, qkv, segments, Hq, Hkv, D, window=0, scale=None)\n--\n\ndqkv (N, (Hq + 2 Hkv) D).",
   o->attention_bwd(ctx, P(dqkv), P(dy), P(y), P(lse), P(qkv), P(segments), d['n'], d['N'],
                    (struct attention_shape[]){shape_of(a)}),
   ({REAL, OUT, "dqkv", "NQ"}, {REAL, IN, "dy", "NY"}, {REAL, IN, "y", "NY"}, {FLOAT, IN, "lse", "NH"},
    {REAL, IN, "qkv", "NQ"}, {INT, IN, "segments", "n4"}, SHAPE),
   .check = check_segments)
OP(attention_decode, "attention_decode($self, qkv, kv, place, dst, src, n_pages, pages, length, Hq, Hkv, D, window=0, scale=None)\n--\n\n"
   "(y (S, Hq D), lse (S, Hq)). The pool of n_pages is filled before: kv (N, (Hq + 2 Hkv) D) by kv_store at place (N), kv_copy of pages\n"
   "src (n) to dst (n), kv_store again; pages is (S, max_pages), length (S).",
   decode_rows(o, ctx, a),
   ({REAL, OUT, "y", "SY"}, {FLOAT, OUT, "lse", "SH"}, {REAL, IN, "qkv", "SQ"}, {REAL, IN, "kv", "NQ"}, {INT, IN, "place", "N"},
    {INT, IN, "dst", "n", 'M'}, {INT, IN, "src", "n", 'M'}, {SIZE, IN, "n_pages", "M"}, {INT, IN, "pages", "SP"},
    {INT, IN, "length", "S"}, SHAPE),
   .check = check_pages, .prepare = fill_pool)
OP(glu, "glu($self, gu, gate)\n--\n\n(N, F) of gu (N, 2 F); gate: 0 silu, 1 gelu_tanh.",
   o->glu(ctx, P(y), P(gu), WHOLE(gate), d['N'], d['F']),
   ({REAL, OUT, "y", "NF"}, {REAL, IN, "gu", "NG"}, {INTEGER, IN, "gate", ""}), .check = check_gate)
OP(glu_bwd, "glu_bwd($self, dy, gu, gate)\n--\n\ndgu (N, 2 F).",
   o->glu_bwd(ctx, P(dgu), P(dy), P(gu), WHOLE(gate), d['N'], d['F']),
   ({REAL, OUT, "dgu", "NG"}, {REAL, IN, "dy", "NF"}, {REAL, IN, "gu", "NG"}, {INTEGER, IN, "gate", ""}), .check = check_gate)
OP(gelu, "gelu($self, z, kind)\n--\n\n(N, F) of z (N, F); kind: 0 erf, 1 tanh, 2 quick.",
   o->gelu(ctx, P(y), P(z), WHOLE(kind), d['N'], d['F']),
   ({REAL, OUT, "y", "NF"}, {REAL, IN, "z", "NF"}, {INTEGER, IN, "kind", ""}), .check = check_gelu)
OP(gelu_bwd, "gelu_bwd($self, d, z, kind)\n--\n\nd (N, F) turned to the gradient of z (N, F).",
   o->gelu_bwd(ctx, P(d), P(z), WHOLE(kind), d['N'], d['F']),
   ({REAL, ADD, "d", "NF"}, {REAL, IN, "z", "NF"}, {INTEGER, IN, "kind", ""}), .check = check_gelu)
OP(gather_rows, "gather_rows($self, src, index)\n--\n\n(R, C): rows index (R) of src (N, C).",
   o->gather_rows(ctx, P(dst), P(src), P(index), d['R'], d['C']),
   ({REAL, OUT, "dst", "RC"}, {REAL, IN, "src", "NC"}, {INT, IN, "index", "R", 'N'}))
OP(put_rows, "put_rows($self, dst, src, index)\n--\n\ndst (N, C) with rows index (R), no two the same, replaced by src (R, C).",
   o->put_rows(ctx, P(dst), P(src), P(index), d['R'], d['C']),
   ({REAL, ADD, "dst", "NC"}, {REAL, IN, "src", "RC"}, {INT, IN, "index", "R", 'N'}))
OP(scatter_rows_add, "scatter_rows_add($self, dst, src, index)\n--\n\ndst (N, C) with src (R, C) added to rows index.",
   o->scatter_rows_add(ctx, P(dst), P(src), P(index), d['R'], d['C']),
   ({REAL, ADD, "dst", "NC"}, {REAL, IN, "src", "RC"}, {INT, IN, "index", "R", 'N'}))
OP(head, "head($self, h, W, target, inv_temperature=1.0)\n--\n\n(logp (R), entropy (R)) of h (R, C), W (V, C).",
   o->head(ctx, NULL, &(struct head_rows){d['R'], P(h), P(target), P(logp), P(entropy), NULL, NULL, NULL}, P(W), X(inv_temperature),
           d['C'], d['V']),
   ({FLOAT, OUT, "logp", "R"}, {FLOAT, OUT, "entropy", "R"}, {REAL, IN, "h", "RC"}, {WEIGHT, IN, "W", "VC"},
    {INT, IN, "target", "R", 'V'}, {NUMBER, OPTIONAL, "inv_temperature", "", .fallback = 1}))
OP(head_bwd, "head_bwd($self, dW, h, W, target, coef, ecoef=None, inv_temperature=1.0)\n--\n\n"
   "head() with its backward: (logp (R), entropy (R), dh (R, C), dW (V, C)).",
   o->head(ctx, P(dW), &(struct head_rows){d['R'], P(h), P(target), P(logp), P(entropy), P(coef), P(ecoef), P(dh)}, P(W),
           X(inv_temperature), d['C'], d['V']),
   ({FLOAT, OUT, "logp", "R"}, {FLOAT, OUT, "entropy", "R"}, {REAL, OUT, "dh", "RC"}, {FLOAT, ADD, "dW", "VC"},
    {REAL, IN, "h", "RC"}, {WEIGHT, IN, "W", "VC"}, {INT, IN, "target", "R", 'V'}, {FLOAT, IN, "coef", "R"},
    {FLOAT, OPTIONAL, "ecoef", "R"}, {NUMBER, OPTIONAL, "inv_temperature", "", .fallback = 1}))
OP(logits, "logits($self, h, W)\n--\n\n(S, V) of h (S, C), W (V, C).",
   o->logits(ctx, P(z), P(h), P(W), d['S'], d['C'], d['V']),
   ({FLOAT, OUT, "z", "SV"}, {REAL, IN, "h", "SC"}, {WEIGHT, IN, "W", "VC"}))
OP(sample, "sample($self, h, W, keys, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0,\n"
   "       forbidden=None, seen=None, stop_ids=None, seed=0, step=0)\n--\n\n"
   "(ids, logp, policy_logp, entropy, next), each (S), and seen with what was drawn, if given. keys: uint32 (S, 4) of\n"
   "prompt, sample, position, no_stop; forbidden (V), seen (S, V): uint8.",
   sample_rows(o, ctx, a),
   ({HOST_INT, OUT, "id", "S"}, {HOST_FLOAT, OUT, "logp", "S"}, {HOST_FLOAT, OUT, "policy_logp", "S"},
    {HOST_FLOAT, OUT, "entropy", "S"}, {INT, OUT, "next", "S"}, {REAL, IN, "h", "SC"}, {WEIGHT, IN, "W", "VC"}, {HOST_UINT, IN, "keys", "S4"},
    {NUMBER, OPTIONAL, "temperature", "", .fallback = 1}, {INTEGER, OPTIONAL, "top_k", ""},
    {NUMBER, OPTIONAL, "top_p", "", .fallback = 1}, {NUMBER, OPTIONAL, "min_p", ""},
    {NUMBER, OPTIONAL, "repetition_penalty", "", .fallback = 1}, {BYTE, OPTIONAL, "forbidden", "V"},
    {BYTE, ADD_OPTIONAL, "seen", "SV"}, {INT, OPTIONAL, "stop_ids", "s", 'V'}, {INTEGER, OPTIONAL, "seed", ""},
    {INTEGER, OPTIONAL, "step", ""}),
   .prepare = place_keys)
#define ADAMW_SCALARS \
    {NUMBER, IN, "lr", ""}, {NUMBER, IN, "beta1", ""}, {NUMBER, IN, "beta2", ""}, {NUMBER, IN, "eps", ""}, {NUMBER, IN, "weight_decay", ""}, \
    {NUMBER, IN, "grad_scale", ""}, {NUMBER, IN, "correction1", ""}, {NUMBER, IN, "correction2", ""}, {INTEGER, OPTIONAL, "seed", ""}, \
    {INTEGER, OPTIONAL, "step", ""}, {INTEGER, OPTIONAL, "first", ""}
OP(adamw, "adamw($self, w, lower, m, v, g, lr, beta1, beta2, eps, weight_decay, grad_scale, correction1, correction2, seed=0, step=0,\n"
   "      first=0)\n--\n\n(w, lower, m, v) after one step, each (O, C). lower: uint16, or uint8 (float24 masters), None where the\n"
   "device stores float32; m, v: float32, or uint16 holding bfloat16 bits.",
   update_weights(o, ctx, a, d['O'], d['C']),
   ({WEIGHT, ADD, "w", "OC"}, {LOWER, ADD_OPTIONAL, "lower", "OC"}, {MOMENT, ADD, "m", "OC"}, {MOMENT, ADD, "v", "OC"},
    {FLOAT, IN, "g", "OC"}, ADAMW_SCALARS), .check = check_moments)
OP(adamw_float8, "adamw_float8($self, w, lower, m, v, g, lr, beta1, beta2, eps, weight_decay, grad_scale, correction1, correction2,\n"
   "             seed=0, step=0, first=0)\n--\n\nadamw() with moments in 8 bits: m, v uint8, codes (O, C) and then exponents (O, ceil(C / 256)), flat.",
   update_weights(o, ctx, a, d['O'], d['C']),
   ({WEIGHT, ADD, "w", "OC"}, {LOWER, ADD_OPTIONAL, "lower", "OC"}, {BYTE, ADD, "m", "T"}, {BYTE, ADD, "v", "T"},
    {FLOAT, IN, "g", "OC"}, ADAMW_SCALARS), .check = check_float8)
OP(adamw_vector, "adamw_vector($self, w, lower, m, v, g, lr, beta1, beta2, eps, weight_decay, grad_scale, correction1, correction2,\n"
   "             seed=0, step=0, first=0)\n--\n\nadamw() of a vector, each (O); w as vector_set() gives it.",
   update_weights(o, ctx, a, d['O'], 0),
   ({FLOAT, ADD, "w", "O"}, {LOWER, ADD_OPTIONAL, "lower", "O"}, {MOMENT, ADD, "m", "O"}, {MOMENT, ADD, "v", "O"},
    {FLOAT, IN, "g", "O"}, ADAMW_SCALARS), .check = check_moments)
OP(sum_squares, "sum_squares($self, g)\n--\n\nfloat64 sum of the squares of g (L).",
   o->sum_squares(ctx, P(sum), P(g), (size_t)d['L']),
   ({HOST_DOUBLE, OUT, "sum", ""}, {FLOAT, IN, "g", "L"}))
OP(lerp, "lerp($self, dst, src, alpha)\n--\n\n(1 - alpha) dst + alpha src, both (L).",
   o->lerp(ctx, P(dst), P(src), X(alpha), (size_t)d['L']),
   ({FLOAT, ADD, "dst", "L"}, {FLOAT, IN, "src", "L"}, {NUMBER, IN, "alpha", ""}))

/* -- the type ------------------------------------------------------------------------------------------------------ */

static PyObject *philox_static(PyObject *type, PyObject *args) {
    (void)type;
    unsigned long long key;
    unsigned int c[4];
    if (!PyArg_ParseTuple(args, "K(IIII):philox", &key, &c[0], &c[1], &c[2], &c[3])) return NULL;
    struct philox r = philox(key, c[0], c[1], c[2], c[3]);
    return Py_BuildValue("(IIII)", r.x[0], r.x[1], r.x[2], r.x[3]);
}

#define METHOD(name_) {#name_, (PyCFunction)(void (*)(void))py_##name_, METH_VARARGS | METH_KEYWORDS, doc_##name_}
static PyMethodDef methods[] = {
    METHOD(zero), METHOD(copy), METHOD(weight_set), METHOD(weight_get), METHOD(vector_set), METHOD(cast), METHOD(embed),
    METHOD(embed_dw), METHOD(linear), METHOD(linear_add), METHOD(linear_dx), METHOD(linear_dw), METHOD(rmsnorm), METHOD(rmsnorm_add), METHOD(rmsnorm_bwd_add),
    METHOD(layernorm), METHOD(layernorm_bwd_add),
    METHOD(rope_table), METHOD(rope), METHOD(rope_bwd), METHOD(attention), METHOD(attention_bwd),
    METHOD(attention_decode), METHOD(glu), METHOD(glu_bwd), METHOD(gelu), METHOD(gelu_bwd), METHOD(gather_rows), METHOD(put_rows),
    METHOD(scatter_rows_add), METHOD(head), METHOD(head_bwd), METHOD(logits), METHOD(sample), METHOD(adamw),
    METHOD(adamw_float8), METHOD(adamw_vector), METHOD(sum_squares), METHOD(lerp),
    {"philox", philox_static, METH_VARARGS | METH_STATIC,
     "philox(key, counter, /)\n--\n\nThe four words of Philox4x32-10 for a 64-bit key and a counter of four words."},
    {NULL, NULL, 0, NULL},
};

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
    status = ops->open(&self->ctx);
    if (!status) self->ops = ops;
    else {
        raise_status(status);
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void ops_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    if (((Ops *)self)->ops) ((Ops *)self)->ops->close(((Ops *)self)->ctx);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "Ops(device)\n--\n\nEvery operation of ops.h on float32 arrays, rounded to the device's storage."},
    {Py_tp_new, ops_new},
    {Py_tp_dealloc, ops_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, getset},
    {0, NULL},
};
static PyType_Spec spec = {"grpo._core.Ops", sizeof(Ops), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, slots};

int add_ops(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!type) return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}
