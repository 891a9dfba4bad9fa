/* Parameters: one arena of working weights, laid out from params.def. */
#include "model/model.h"
#include "base/float8.h"
#include "model/kept.h"
#include "ops/device.h"

#include <stdio.h>
#include <stdlib.h>

enum scope { MODEL, LAYER };
enum { ALIGN_ELEMENTS = 16 };

int config_check(const struct config *c) {
    const struct { const char *name; int value; } sizes[] = {
        {"n_layers", c->n_layers}, {"d_model", c->d_model}, {"n_heads", c->n_heads}, {"n_kv_heads", c->n_kv_heads},
        {"head_dim", c->head_dim}, {"d_ff", c->d_ff}, {"vocab_size", c->vocab_size},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > 1 << 24)
            return fail(E_CONFIG, "%s is %d, must be 1..%d", sizes[i].name, sizes[i].value, 1 << 24);
    if (c->n_heads % c->n_kv_heads)
        return fail(E_CONFIG, "n_heads (%d) is not a multiple of n_kv_heads (%d)", c->n_heads, c->n_kv_heads);
    if (c->head_dim % 2 || c->head_dim > 256) return fail(E_CONFIG, "head_dim is %d, must be even and at most 256", c->head_dim);
    if (!(c->rms_eps > 0)) return fail(E_CONFIG, "rms_eps is %g, must be positive", (double)c->rms_eps);
    return OK;
}

/* Calls visit for every line of the table that this config has, model-wide lines first. */
typedef int (*visitor)(void *arg, const struct param *p);
static int visit_params(const struct config *c, visitor visit, void *arg) {
    for (int layer = -1; layer < c->n_layers; layer++) {
#define P(field, scope_, columns, present, n0, r0, n1, r1, n2, r2)                                                     \
        if (((scope_) == LAYER) == (layer >= 0) && (present)) {                                                        \
            struct param p = {.id = P_##field, .layer = layer, .O = (r0) + (r1) + (r2), .C = (columns),                \
                              .name = {n0, n1, n2}, .rows = {r0, r1, r2}};                                             \
            TRY(visit(arg, &p));                                                                                       \
        }
#include "model/params.def"
#undef P
    }
    return OK;
}

static size_t stored_bytes(const struct ops *ops, const struct param *p) {
    size_t bytes = p->C ? ops->weight_bytes(p->O, p->C) : (size_t)p->O * sizeof(float);
    return (bytes + 63) & ~(size_t)63;
}

struct sizes { const struct ops *ops; int n; size_t elements, bytes; };
static int add_sizes(void *arg, const struct param *p) {
    struct sizes *s = arg;
    s->n++;
    s->elements += (param_size(p) + ALIGN_ELEMENTS - 1) & ~(size_t)(ALIGN_ELEMENTS - 1);
    if (s->ops) s->bytes += stored_bytes(s->ops, p);
    return OK;
}

size_t model_weight_bytes(const struct ops *ops, const struct config *c) {
    struct sizes s = {.ops = ops};
    visit_params(c, add_sizes, &s);
    return s.bytes;
}

size_t model_elements(const struct config *c) {
    struct sizes s = {0};
    visit_params(c, add_sizes, &s);
    return s.elements;
}

size_t param_moment_bytes(const struct param *p, enum moment_dtype dtype) {
    dtype = param_moments(p, dtype);
    size_t exponents = dtype == MOMENT_FLOAT8 ? (size_t)p->O * (size_t)float8_blocks(p->C) : 0;
    return (param_size(p) * moment_element(dtype) + exponents + 31) & ~(size_t)31;
}

struct moment_sum { enum moment_dtype dtype; size_t bytes; };
static int add_moments(void *arg, const struct param *p) {
    struct moment_sum *sum = arg;
    sum->bytes += param_moment_bytes(p, sum->dtype);
    return OK;
}

size_t model_moment_bytes(const struct config *c, enum moment_dtype dtype) {
    struct moment_sum sum = {.dtype = dtype};
    visit_params(c, add_moments, &sum);
    return sum.bytes;
}

static int place_param(void *arg, const struct param *p) {
    struct model *m = arg;
    struct param *mine = &m->params[m->n_params++];
    *mine = *p;
    mine->offset = m->n_elements;
    m->n_elements += (param_size(p) + ALIGN_ELEMENTS - 1) & ~(size_t)(ALIGN_ELEMENTS - 1);
    return OK;
}

int model_create(struct model **out, const char *device, const struct config *config, const float *inv_freq) {
    const struct ops *ops;
    TRY(config_check(config));
    TRY(ops_find(&ops, device));
    struct sizes s = {.ops = ops};
    visit_params(config, add_sizes, &s);
    struct device opened;
    TRY(device_open(&opened, ops));
    struct model *m = calloc(1, sizeof *m);
    if (!m) {
        device_close(&opened);
        return fail(E_MEMORY, "no memory for a model");
    }
    m->config = *config;
    m->device = opened;
    m->params = calloc((size_t)s.n, sizeof *m->params);
    m->weights = device_alloc(&m->device, s.bytes);
    m->inv_freq = device_alloc(&m->device, (size_t)config->head_dim / 2 * sizeof(float));
    int status = OK;
    if (!m->params || !m->weights || !m->inv_freq)
        status = fail(E_MEMORY, "the model's weights need %.2f GB, which this machine does not have", (double)s.bytes / 1e9);
    if (!status) {
        visit_params(config, place_param, m);
        char *at = m->weights;
        for (int i = 0; i < m->n_params; i++) {
            m->params[i].w = at;
            at += stored_bytes(ops, &m->params[i]);
        }
        status = device_upload(&m->device, m->inv_freq, inv_freq, (size_t)config->head_dim / 2 * sizeof(float));
    }
    if (status) {
        model_free(m);
        return status;
    }
    *out = m;
    return OK;
}

void model_free(struct model *m) {
    if (!m) return;
    kept_free(m);
    device_release(&m->device, m->workspace);
    device_release(&m->device, m->mixed);
    device_release(&m->device, m->inv_freq);
    device_release(&m->device, m->weights);
    device_close(&m->device);
    free(m->params);
    free(m);
}

int model_workspace(struct model *m, void **out, size_t bytes) {
    if (bytes > m->workspace_bytes) {
        device_release(&m->device, m->workspace);          /* first, so that both never stand side by side */
        m->workspace_bytes = 0;
        m->workspace = device_alloc(&m->device, bytes);
        if (!m->workspace)
            return fail(E_MEMORY, "activations and KV cache need %.2f GB: use a smaller token_budget, fewer slots, shorter completions or "
                                  "recompute", (double)bytes / 1e9);
        m->workspace_bytes = bytes;
    }
    *out = m->workspace;
    return OK;
}

struct param *model_param(const struct model *m, int layer, enum param_id id) {
    /* the same lines exist in every layer, so layers are equally long */
    int first = 0;
    while (first < m->n_params && m->params[first].layer < 0) first++;
    int per_layer = (m->n_params - first) / m->config.n_layers;
    int begin = layer < 0 ? 0 : first + layer * per_layer, end = layer < 0 ? first : begin + per_layer;
    for (int i = begin; i < end; i++)
        if (m->params[i].id == id) return &m->params[i];
    return NULL;
}

void model_tensor_name(char *name, size_t size, const struct param *p, int piece) {
    if (p->layer < 0) snprintf(name, size, "%s", p->name[piece]);
    else snprintf(name, size, "model.layers.%d.%s", p->layer, p->name[piece]);
}

int model_find(struct tensor *out, const struct model *m, const char *name) {
    char full[128];
    for (int i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        for (int piece = 0, row = 0; piece < 3 && p->name[piece]; row += p->rows[piece++]) {
            model_tensor_name(full, sizeof full, p, piece);
            if (!strcmp(full, name)) {
                *out = (struct tensor){p, row, p->rows[piece]};
                return OK;
            }
        }
    }
    return fail(E_CONFIG, "this model has no tensor '%.200s'", name);
}

static size_t row_size(const struct param *p) { return (size_t)(p->C ? p->C : 1); }
size_t tensor_offset(const struct tensor *t) { return t->param->offset + (size_t)t->row * row_size(t->param); }
size_t tensor_size(const struct tensor *t) { return (size_t)t->rows * row_size(t->param); }

/* A tensor goes through staging memory a few rows at a time: elements [at, at + n) of it. */
enum { STAGED = 1 << 20 };
struct piece { int row, rows; size_t at, n; };

static int next_piece(struct piece *q, const struct tensor *t) {
    size_t width = row_size(t->param);
    q->row += q->rows;
    q->at += q->n;
    q->rows = min_int(t->rows - q->row, max_int(1, (int)(STAGED / width)));
    q->n = (size_t)q->rows * width;
    return q->rows > 0;
}

/* Staging of the backend for the largest piece, floats */
static int open_staging(float **staged, const struct model *m, const struct tensor *t) {
    struct piece first = {0};
    next_piece(&first, t);
    *staged = device_alloc(&m->device, first.n * sizeof(float));
    return *staged ? OK : fail(E_MEMORY, "no memory for staging %zu numbers", first.n);
}

static int set_piece(struct model *m, const struct tensor *t, const struct piece *q, float *staged, const float *host) {
    const struct param *p = t->param;
    TRY(device_upload(&m->device, staged, host, q->n * sizeof *host));
    return p->C ? op_weight_set(&m->device, p->w, staged, t->row + q->row, q->rows, p->O, p->C)
                : op_vector_set(&m->device, (float *)p->w + t->row + q->row, staged, q->rows);
}

/* Where a tensor's elements from `at` on have the bits of their masters that the working weights lack */
static void *lower_at(const struct model *m, const struct tensor *t, size_t at) {
    return (char *)m->lower + (tensor_offset(t) + at) * lower_element(m->masters);
}

/* The same with the bits that the working weight lacks */
static int set_master_piece(struct model *m, const struct tensor *t, const struct piece *q, float *staged, const float *host) {
    float *upper = malloc(q->n * (sizeof(float) + sizeof(uint16_t)));
    if (!upper) return fail(E_MEMORY, "no memory for %zu numbers", q->n);
    void *lower = upper + q->n;
    for (size_t i = 0; i < q->n; i++) {
        uint32_t bits = m->masters == MASTER_FLOAT24 ? nearest_float24(float_bits(host[i])) : float_bits(host[i]);
        upper[i] = bf16_to_float(upper_of(bits));
        store_lower(lower, i, bits, m->masters);
    }
    int status = device_upload(&m->device, lower_at(m, t, q->at), lower, q->n * lower_element(m->masters));
    if (!status) status = set_piece(m, t, q, staged, upper);
    free(upper);
    return status;
}

int model_set(struct model *m, const struct tensor *t, const float *host) {
    float *staged;
    TRY(open_staging(&staged, m, t));
    m->version++;
    int status = OK;
    for (struct piece q = {0}; !status && next_piece(&q, t);)
        status = (m->lower ? set_master_piece : set_piece)(m, t, &q, staged, host + q.at);
    if (!status && m->mixed) status = device_upload(&m->device, m->mixed + tensor_offset(t), host, tensor_size(t) * sizeof *host);
    device_release(&m->device, staged);
    return status;
}

int model_get(const struct model *m, const struct tensor *t, float *host) {
    const struct param *p = t->param;
    if (m->mixed) return device_download(&m->device, host, m->mixed + tensor_offset(t), tensor_size(t) * sizeof *host);
    if (!p->C) return device_download(&m->device, host, (const float *)p->w + t->row, tensor_size(t) * sizeof *host);
    float *staged;
    TRY(open_staging(&staged, m, t));
    int status = OK;
    for (struct piece q = {0}; !status && next_piece(&q, t);) {
        status = op_weight_get(&m->device, staged, p->w, t->row + q.row, q.rows, p->O, p->C);
        if (!status) status = device_download(&m->device, host + q.at, staged, q.n * sizeof *host);
    }
    device_release(&m->device, staged);
    return status;
}

int model_get_master(const struct model *m, const struct tensor *t, float *host) {
    TRY(model_get(m, t, host));
    if (!m->lower) return OK;
    size_t n = tensor_size(t), bytes = n * lower_element(m->masters);
    void *lower = malloc(bytes);
    if (!lower) return fail(E_MEMORY, "no memory for %zu numbers", n);
    int status = device_download(&m->device, lower, lower_at(m, t, 0), bytes);
    for (size_t i = 0; i < n && !status; i++)
        host[i] = float_from_bits(join_bits((bf16)(float_bits(host[i]) >> 16), load_lower(lower, i, m->masters)));
    free(lower);
    return status;
}

int model_pack(struct model *m, const float *arena) {
    m->version++;
    if (m->lower) TRY(op_zero(&m->device, m->lower, m->n_elements * lower_element(m->masters)));
    for (int i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        TRY(p->C ? op_weight_set(&m->device, p->w, arena + p->offset, 0, p->O, p->O, p->C) : op_vector_set(&m->device, p->w, arena + p->offset, p->O));
    }
    return OK;
}

int model_unpack(const struct model *m, float *arena) {
    for (int i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        TRY(p->C ? op_weight_get(&m->device, arena + p->offset, p->w, 0, p->O, p->O, p->C)
                 : op_copy(&m->device, arena + p->offset, p->w, (size_t)p->O * sizeof(float)));
    }
    return OK;
}

int model_mix(struct model *m, const struct model *other, float alpha) {
    const struct ops *ops = m->device.ops;
    if (other->device.ops != ops || memcmp(&m->config, &other->config, sizeof m->config))
        return fail(E_CONFIG, "only models of one shape on one device can be mixed");
    if (!(alpha >= 0 && alpha <= 1)) return fail(E_CONFIG, "alpha is %g, must be in 0..1", (double)alpha);
    size_t bytes = m->n_elements * sizeof(float);
    float *source = device_alloc(&m->device, bytes);
    int status = source ? OK : E_MEMORY;
    if (!status && !m->mixed) {
        m->mixed = device_alloc(&m->device, bytes);
        status = m->mixed ? model_unpack(m, m->mixed) : E_MEMORY;
    }
    if (status == E_MEMORY) status = fail(E_MEMORY, "mixing a reference needs 2 x %.2f GB", (double)bytes / 1e9);
    if (!status) status = model_unpack(other, source);
    if (!status) status = op_lerp(&m->device, m->mixed, source, alpha, m->n_elements);
    if (!status) status = model_pack(m, m->mixed);
    device_release(&m->device, source);
    return status;
}
