#include "net/weights.h"

#include <assert.h>
#include <stdlib.h>

#include "base/base.h"

static size_t stored_bytes(const struct ops *ops, const struct param *p) {
    size_t bytes = p->C ? ops->weight_bytes(p->O, p->C) : (size_t)p->O * sizeof(float);
    return (bytes + 63) / 64 * 64;
}

struct sizes {
    const struct ops *ops;
    int n;
    size_t bytes;
};
static int add_sizes(void *arg, const struct param *p) {
    struct sizes *s = arg;
    s->n++;
    s->bytes += stored_bytes(s->ops, p);
    return OK;
}

size_t weights_bytes(const struct ops *ops, const struct spec *spec) {
    struct sizes s = {.ops = ops};
    spec_visit(spec, add_sizes, &s, NULL);
    return s.bytes;
}

struct placing {
    struct weights *w;
    char *at;
};
static int place_param(void *arg, const struct param *p) {
    struct placing *placing = arg;
    struct weights *w = placing->w;
    struct param *mine = &w->params[w->n_params++];
    assert(p->offset % ALIGN_ELEMENTS == 0 && p->offset + param_size(p) <= w->n_elements);
    *mine = *p;
    mine->w = placing->at;
    placing->at += stored_bytes(w->device.ops, p);
    w->by_slot[(p->layer + 1) * SLOTS + (int)p->slot] = mine;
    return OK;
}

static int upload_ropes(struct weights *w) {
    size_t n = (size_t)w->pairs;
    for (int i = 0; i < w->spec.n_ropes; i++) {
        const struct rope_spec *r = &w->spec.ropes[i];
        TRY(device_upload(&w->device, w->inv_freq + (size_t)i * n, r->inv_freq, n * sizeof *r->inv_freq));
        TRY(device_upload(&w->device, w->axis + (size_t)i * n, r->axis, n * sizeof *r->axis));
    }
    return OK;
}

static int weights_fill(struct weights *w, const struct spec *spec) {
    const struct ops *ops = w->device.ops;
    struct sizes s = {.ops = ops};
    TRY(spec_copy(&w->spec, spec));
    spec_visit(spec, add_sizes, &s, &w->n_elements);
    w->params = calloc((size_t)s.n, sizeof *w->params);
    w->by_slot = calloc((size_t)(1 + n_parts(spec)) * SLOTS, sizeof *w->by_slot);
    w->arena = device_alloc(&w->device, s.bytes);
    w->pairs = spec_widths(spec).head_dim / 2;
    w->inv_freq = device_alloc(&w->device, (size_t)spec->n_ropes * (size_t)w->pairs * sizeof *w->inv_freq);
    if (!w->params || !w->by_slot || !w->arena || !w->inv_freq)
        return fail(E_MEMORY, "the model's weights need %.2f GB, which this machine does not have",
                    (double)s.bytes / 1e9);
    struct placing placing = {w, w->arena};
    spec_visit(spec, place_param, &placing, NULL);
    assert(w->n_params == s.n && placing.at == (char *)w->arena + s.bytes);
    w->axis = device_alloc(&w->device, (size_t)spec->n_ropes * (size_t)w->pairs * sizeof *w->axis);
    if (!w->axis) return fail(E_MEMORY, "no memory for %d ropes", spec->n_ropes);
    return upload_ropes(w);
}

int weights_create(struct weights **out, const struct device *device, const struct spec *spec) {
    TRY(spec_check(spec));
    struct weights *w = calloc(1, sizeof *w);
    if (!w) return fail(E_MEMORY, "no memory for a model");
    w->device = *device;
    int status = weights_fill(w, spec);
    if (status) weights_free(w);
    else *out = w;
    return status;
}

void weights_free(struct weights *w) {
    if (!w) return;
    device_release(&w->device, w->inv_freq);
    device_release(&w->device, w->axis);
    device_release(&w->device, w->arena);
    spec_free(&w->spec);
    free(w->by_slot);
    free(w->params);
    free(w);
}

int tensor_find(struct tensor *out, const struct weights *w, const char *name) {
    char full[TENSOR_NAME_MAX];
    for (int i = 0; i < w->n_params; i++) {
        const struct param *p = &w->params[i];
        for (int piece = 0, row = 0; piece < PIECES && p->rows[piece]; row += p->rows[piece++]) {
            tensor_name(full, sizeof full, &w->spec, p, piece);
            if (strcmp(full, name)) continue;
            *out = (struct tensor){p, row, p->rows[piece]};
            return OK;
        }
    }
    return fail(E_CONFIG, "this model has no tensor '%.200s'", name);
}

/* -- files --------------------------------------------------------------------------------------------------------- */

/* Rows of a parameter come in `outer` times `inner` blocks of as many rows; host becomes inner times outer of them. */
static int swap_blocks(float *host, const struct tensor *t, int outer, int inner) {
    size_t n = tensor_size(t), block = n / (size_t)(outer * inner);
    float *copy = malloc(n * sizeof *copy);
    if (!copy) return fail(E_MEMORY, "no memory for %zu numbers", n);
    memcpy(copy, host, n * sizeof *copy);
    for (int i = 0; i < outer; i++)
        for (int k = 0; k < inner; k++)
            memcpy(host + (size_t)(k * outer + i) * block, copy + (size_t)(i * inner + k) * block,
                   block * sizeof *host);
    free(copy);
    return OK;
}

/* Heads of a tensor whose q, k and v are interleaved; 0: of another one */
static int interleaved_heads(const struct weights *w, const struct tensor *t) {
    const struct param *p = t->param;
    if (p->slot != P_qkv && p->slot != P_qkv_bias) return 0;
    const struct attention_spec *a = &w->spec.layers[p->layer].attention;
    return a->interleaved ? a->heads : 0;
}

int tensor_as_in_files(const struct weights *w, const struct tensor *t) { return !interleaved_heads(w, t); }

int tensor_from_file(float *host, const struct weights *w, const struct tensor *t) {
    int heads = interleaved_heads(w, t);
    return heads ? swap_blocks(host, t, heads, 3) : OK;
}

int tensor_to_file(float *host, const struct weights *w, const struct tensor *t) {
    int heads = interleaved_heads(w, t);
    return heads ? swap_blocks(host, t, 3, heads) : OK;
}

/* -- host and device: through staging memory, a few rows at a time ------------------------------------------------- */

enum { STAGED = 1 << 20 };                 /* numbers */

int tensor_next(struct tensor *piece, const struct tensor *whole) {
    int begin = piece->param ? piece->row + piece->rows : whole->row, end = whole->row + whole->rows;
    int most = max_int(1, (int)(STAGED / param_columns(whole->param)));
    *piece = (struct tensor){whole->param, begin, min_int(end - begin, most)};
    return piece->rows > 0;
}

/* Device memory for the largest piece, floats */
static int open_staging(float **staged, const struct weights *w, const struct tensor *t) {
    struct tensor first = {0};
    tensor_next(&first, t);
    *staged = device_alloc(&w->device, tensor_size(&first) * sizeof(float));
    return *staged ? OK : fail(E_MEMORY, "no memory for staging %zu numbers", tensor_size(&first));
}

static int set_piece(struct weights *w, const struct tensor *piece, float *staged, const float *host) {
    const struct param *p = piece->param;
    TRY(device_upload(&w->device, staged, host, tensor_size(piece) * sizeof *host));
    return p->C ? op_weight_set(&w->device, p->w, staged, piece->row, piece->rows, p->O, p->C)
                : op_vector_set(&w->device, (float *)p->w + piece->row, staged, piece->rows);
}

int weights_set(struct weights *w, const struct tensor *t, const float *host) {
    float *staged;
    TRY(open_staging(&staged, w, t));
    w->version++;
    int status = OK;
    for (struct tensor piece = {0}; !status && tensor_next(&piece, t); host += tensor_size(&piece))
        status = set_piece(w, &piece, staged, host);
    device_release(&w->device, staged);
    return status;
}

int weights_get(const struct weights *w, const struct tensor *t, float *host) {
    const struct param *p = t->param;
    if (!p->C) return device_download(&w->device, host, (const float *)p->w + t->row, tensor_size(t) * sizeof *host);
    float *staged;
    TRY(open_staging(&staged, w, t));
    int status = OK;
    for (struct tensor piece = {0}; !status && tensor_next(&piece, t); host += tensor_size(&piece)) {
        status = op_weight_get(&w->device, staged, p->w, piece.row, piece.rows, p->O, p->C);
        if (!status) status = device_download(&w->device, host, staged, tensor_size(&piece) * sizeof *host);
    }
    device_release(&w->device, staged);
    return status;
}

int weights_pack(struct weights *w, const float *arena) {
    w->version++;
    for (int i = 0; i < w->n_params; i++) {
        const struct param *p = &w->params[i];
        TRY(p->C ? op_weight_set(&w->device, p->w, arena + p->offset, 0, p->O, p->O, p->C)
                 : op_vector_set(&w->device, p->w, arena + p->offset, p->O));
    }
    return OK;
}

int weights_unpack(const struct weights *w, float *arena) {
    for (int i = 0; i < w->n_params; i++) {
        const struct param *p = &w->params[i];
        TRY(p->C ? op_weight_get(&w->device, arena + p->offset, p->w, 0, p->O, p->O, p->C)
                 : op_copy(&w->device, arena + p->offset, p->w, (size_t)p->O * sizeof(float)));
    }
    return OK;
}
