#include "net/spec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

enum { SIZE_MAX_VALUE = 1 << 24 };

static const struct {
    enum scope scope;
    const char *names[PIECES];
} slots[SLOTS] = {
#define P(slot, scope_, columns, present, n0, r0, n1, r1, n2, r2) [P_##slot] = {scope_, {n0, n1, n2}},
#include "net/params.def"
#undef P
};

int spec_create(struct spec *s, int n_layers, int n_ropes) {
    *s = (struct spec){.n_layers = n_layers,
                       .n_ropes = n_ropes,
                       .axes = 1,
                       .embed_scale = 1,
                       .prefix = "model.",
                       .layer_prefix = "layers."};
    if (n_layers < 1 || n_layers > LAYERS_MAX)
        return fail(E_CONFIG, "layers: %d of them, must be 1..%d", n_layers, LAYERS_MAX);
    if (n_ropes < 1 || n_ropes > ROPES_MAX)
        return fail(E_CONFIG, "ropes: %d of them, must be 1..%d", n_ropes, ROPES_MAX);
    for (int i = 0; i < SLOTS; i++)
        for (int piece = 0; piece < PIECES; piece++)
            snprintf(s->names[i][piece], sizeof s->names[i][piece], "%s", slots[i].names[piece]);
    s->layers = calloc((size_t)n_layers, sizeof *s->layers);
    s->ropes = calloc((size_t)n_ropes, sizeof *s->ropes);
    return s->layers && s->ropes ? OK : fail(E_MEMORY, "no memory for a spec of %d layers", n_layers);
}

int spec_copy(struct spec *to, const struct spec *from) {
    TRY(spec_create(to, from->n_layers, from->n_ropes));
    struct layer_spec *layers = to->layers;
    struct rope_spec *ropes = to->ropes;
    *to = *from;
    to->layers = memcpy(layers, from->layers, (size_t)from->n_layers * sizeof *layers);
    to->ropes = memcpy(ropes, from->ropes, (size_t)from->n_ropes * sizeof *ropes);
    return OK;
}

void spec_free(struct spec *s) {
    free(s->layers);
    free(s->ropes);
    s->layers = NULL;
    s->ropes = NULL;
}

static int check_size(const char *where, const char *key, int value, int most) {
    return value >= 1 && value <= most ? OK : fail(E_CONFIG, "%s%s is %d, must be 1..%d", where, key, value, most);
}

static int check_positive(const char *where, const char *key, float value) {
    return value > 0 && isfinite(value)
               ? OK
               : fail(E_CONFIG, "%s%s is %g, must be positive and finite", where, key, (double)value);
}

static int check_sight(const struct spec *s, const struct attention_spec *a, const char *where) {
    if (a->sight != (is_tower(s) ? SEES_ALL : SEES_BEFORE) || (a->by_window && !is_tower(s)))
        return fail(E_CONFIG, "%srows of a tower see all of their segment, those of a text what is before them", where);
    if (a->window && is_tower(s)) return fail(E_CONFIG, "%swindow is %d, must be 0 in a tower", where, a->window);
    return OK;
}

static int check_mlp(const struct mlp_spec *m, const char *where) {
    TRY(check_size(where, "width", m->width, SIZE_MAX_VALUE));
    if (m->gate < 0 || m->gate >= (m->gated ? (int)GLU_GATES : (int)GELU_KINDS))
        return fail(E_CONFIG, "%sgate is %d, which is none", where, m->gate);
    return OK;
}

static int check_layer(const struct spec *s, int index) {
    const struct attention_spec *a = &s->layers[index].attention;
    const struct mlp_spec *m = &s->layers[index].mlp;
    char where[32];
    snprintf(where, sizeof where, "layer %d: ", index);
    TRY(check_size(where, "heads", a->heads, SIZE_MAX_VALUE));
    TRY(check_size(where, "kv_heads", a->kv_heads, SIZE_MAX_VALUE));
    TRY(check_size(where, "head_dim", a->head_dim, HEAD_DIM_MAX));
    TRY(check_mlp(m, where));
    TRY(check_sight(s, a, where));
    if (a->head_dim % 2) return fail(E_CONFIG, "%shead_dim is %d, must be even", where, a->head_dim);
    if (a->heads % a->kv_heads)
        return fail(E_CONFIG, "%sheads (%d) is not a multiple of kv_heads (%d)", where, a->heads, a->kv_heads);
    if (((int64_t)a->heads + 2 * (int64_t)a->kv_heads) * a->head_dim > SIZE_MAX_VALUE)
        return fail(E_CONFIG, "%s(heads + 2 kv_heads) head_dim is more than %d", where, SIZE_MAX_VALUE);
    if (a->interleaved && (a->heads != a->kv_heads || s->names[P_qkv][1][0]))
        return fail(E_CONFIG, "%sinterleaved: %d heads, %d of keys; must be as many, and q, k, v one tensor", where,
                    a->heads, a->kv_heads);
    if (a->window < 0) return fail(E_CONFIG, "%swindow is %d, must be 0 (none) or positive", where, a->window);
    TRY(check_positive(where, "scale", a->scale));
    if (a->rope < 0 || a->rope >= s->n_ropes)
        return fail(E_CONFIG, "%srope is %d, and the spec has %d", where, a->rope, s->n_ropes);
    return OK;
}

/* Finite numbers; and one rope turns heads of one width */
static int check_ropes(const struct spec *s) {
    for (int i = 0; i < s->n_ropes; i++) {
        char where[32];
        snprintf(where, sizeof where, "rope %d: ", i);
        TRY(check_positive(where, "scale", s->ropes[i].scale));
        for (int j = 0; j < HEAD_DIM_MAX / 2; j++)
            if (s->ropes[i].axis[j] < 0 || s->ropes[i].axis[j] >= s->axes)
                return fail(E_CONFIG, "%saxis[%d] is %d, and positions have %d axes", where, j, s->ropes[i].axis[j],
                            s->axes);
        for (int j = 0; j < HEAD_DIM_MAX / 2; j++)
            if (!(s->ropes[i].inv_freq[j] >= 0 && isfinite(s->ropes[i].inv_freq[j])))
                return fail(E_CONFIG, "%sinv_freq[%d] is %g, must be 0 or positive and finite", where, j,
                            (double)s->ropes[i].inv_freq[j]);
    }
    for (int l = 1; l < s->n_layers; l++)
        for (int k = 0; k < l; k++) {
            const struct attention_spec *a = &s->layers[l].attention, *b = &s->layers[k].attention;
            if (a->rope != b->rope) continue;
            if (a->head_dim != b->head_dim)
                return fail(E_CONFIG, "layer %d: head_dim is %d, and layer %d with the same rope has %d", l,
                            a->head_dim, k, b->head_dim);
            break;
        }
    return OK;
}

/* A rope for every prompt that there may be, behind each layer's own and unlike it in frequencies alone */
static int check_stretches(const struct spec *s) {
    int most = stretch_of(s, s->max_positions);
    if (!s->max_positions)
        return fail(E_CONFIG, "stretch_after is %d, and max_positions says no limit", s->stretch_after);
    for (int l = 0; l < s->n_layers; l++) {
        const struct attention_spec *a = &s->layers[l].attention;
        if (a->head_dim != s->layers[0].attention.head_dim)
            return fail(E_CONFIG, "layer %d: head_dim is %d, and ropes that stretch turn heads of one width, %d", l,
                        a->head_dim, s->layers[0].attention.head_dim);
        if (a->rope + most >= s->n_ropes)
            return fail(E_CONFIG, "layer %d: rope is %d, and prompts of %d tokens turn by rope %d of %d", l, a->rope,
                        s->max_positions, a->rope + most, s->n_ropes);
        for (int n = 1; n <= most; n++)
            if (s->ropes[a->rope + n].scale != s->ropes[a->rope].scale)
                return fail(E_CONFIG, "rope %d: scale is %g, and rope %d that it stretches has %g", a->rope + n,
                            (double)s->ropes[a->rope + n].scale, a->rope, (double)s->ropes[a->rope].scale);
    }
    return OK;
}

/* What depends on how long a sequence is, or how far in it a token is */
static int check_lengths(const struct spec *s) {
    if (s->max_positions < 0)
        return fail(E_CONFIG, "max_positions is %d, must be 0 (no limit) or positive", s->max_positions);
    if (s->stretch_after < 0)
        return fail(E_CONFIG, "stretch_after is %d, must be 0 (never) or positive", s->stretch_after);
    if (s->log_after < 0 || s->log_after == 1)
        return fail(E_CONFIG, "log_after is %d, must be 0 (never) or the base of a logarithm", s->log_after);
    if ((s->stretch_after || s->log_after) && s->axes != 1)
        return fail(E_CONFIG, "stretch_after, log_after: positions have %d axes, must have 1", s->axes);
    return s->stretch_after ? check_stretches(s) : OK;
}

/* A name that two tensors have would be one that only the first of them is found by; a piece without rows hides those
   after it. */
static int mark_slot(void *present, const struct param *p) {
    ((int *)present)[p->slot] = 1;
    return p->rows[0] ? OK : fail(E_CONFIG, "names: the gate of an MLP that has none has a name");
}
static int check_names(const struct spec *s) {
    int present[SLOTS] = {0};
    TRY(spec_visit(s, mark_slot, present, NULL));
    for (int i = 0; i < SLOTS * PIECES; i++)
        for (int k = 0; k < i; k++) {
            int slot = i / PIECES, other = k / PIECES;
            const char *name = s->names[slot][i % PIECES];
            if (*name && present[slot] && present[other] && slots[slot].scope == slots[other].scope &&
                !strcmp(name, s->names[other][k % PIECES]))
                return fail(E_CONFIG, "names: two tensors are called '%s'", name);
        }
    return OK;
}

/* Queries that see patches: heads as wide together as a feature, and a square of queries whose positions are
   interpolated to the grid */
static int check_resampler(const struct spec *s) {
    const struct vision_spec *v = &s->vision;
    const struct attention_spec *a = &v->pool;
    int root = (int)lround(sqrt(v->queries));
    TRY(check_size("resampler: ", "heads", a->heads, SIZE_MAX_VALUE));
    TRY(check_size("resampler: ", "head_dim", a->head_dim, HEAD_DIM_MAX));
    TRY(check_positive("resampler: ", "scale", a->scale));
    if (a->kv_heads != a->heads || (int64_t)a->heads * a->head_dim != v->out || a->head_dim % 2)
        return fail(E_CONFIG,
                    "resampler: %d heads of %d columns with %d of keys; as many, of an even width, make up %d columns",
                    a->heads, a->head_dim, a->kv_heads, v->out);
    if (a->sight != SEES_PREFIX || a->window || a->by_window || a->qk_norm || a->rope)
        return fail(E_CONFIG, "resampler: its attention has no window, no rope and no norms of heads");
    if (root * root != v->queries) return fail(E_CONFIG, "resampler: %d queries are not a square", v->queries);
    if (v->n_mergers || v->side != 1 || v->window || !v->grid_side)
        return fail(E_CONFIG, "resampler: it stands in place of mergers, its tower has cells of one patch, no windows, "
                              "and images of one size");
    return OK;
}

static int check_mergers(const struct spec *s) {
    const struct vision_spec *v = &s->vision;
    TRY(check_size("vision: ", "mergers", v->n_mergers, MERGERS_MAX));
    for (int k = 0; k < v->n_mergers; k++) {
        int last = k + 1 == v->n_mergers, after = v->mergers[k].after;
        if (after < 0 || after >= s->n_layers || (last && after != s->n_layers - 1) ||
            (k && after < v->mergers[k - 1].after))
            return fail(E_CONFIG,
                        "vision: merger %d reads layer %d of %d; mergers stand in the order of their layers, "
                        "the last one's is the last",
                        k, after, s->n_layers);
    }
    return OK;
}

static int check_vision(const struct spec *s) {
    const struct vision_spec *v = &s->vision;
    const struct {
        const char *key;
        int value, most;
    } sizes[] = {{"patch_shape[1]", v->patch_shape[1], 64},
                 {"patch_shape[2]", v->patch_shape[2], 1024},
                 {"patch_shape[3]", v->patch_shape[3], 1024},
                 {"patch_shape[0]", v->patch_shape[0], 64},
                 {"side", v->side, 16},
                 {"window", v->window + 1, 1 << 16},
                 {"table_side", v->table_side + 1, 1 << 12},
                 {"grid_side", v->grid_side + 1, 1 << 12},
                 {"queries", v->queries + 1, 1 << 20},
                 {"out", v->out, SIZE_MAX_VALUE / 3}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        TRY(check_size("vision: ", sizes[i].key, sizes[i].value, sizes[i].most));
    const int *p = v->patch_shape;
    int64_t patch = (int64_t)p[0] * p[1] * p[2] * p[3], cell = (int64_t)v->side * v->side * s->d_model;
    if (patch > SIZE_MAX_VALUE || cell > SIZE_MAX_VALUE)
        return fail(E_CONFIG, "vision: a patch of %lld numbers, a cell of %lld columns; at most %d fit",
                    (long long)patch, (long long)cell, SIZE_MAX_VALUE);
    TRY(v->queries ? check_resampler(s) : check_mergers(s));
    if (v->still && v->patch_shape[1] != 1)
        return fail(E_CONFIG, "vision: patches of %d frames, and files without a dimension for them",
                    v->patch_shape[1]);
    if (v->grid_side % v->side)
        return fail(E_CONFIG, "vision: a grid of %d patches a side, and cells of %d", v->grid_side, v->side);
    return s->axes == 2 ? OK : fail(E_CONFIG, "vision: positions have %d axes, must be 2 (row, column)", s->axes);
}

int spec_check(const struct spec *s) {
    TRY(check_size("", "hidden_size", s->d_model, SIZE_MAX_VALUE));
    TRY(check_size("", "axes", s->axes, AXES_MAX));
    if (is_tower(s)) TRY(check_vision(s));
    else TRY(check_size("", "vocab_size", s->vocab_size, SIZE_MAX_VALUE));
    if (s->levels < 0 || s->levels > s->n_layers + 1)
        return fail(E_CONFIG, "vision: %d mergers for a text of %d layers", s->levels, s->n_layers);
    if (s->norm == NORM_LAYER && !is_tower(s)) return fail(E_CONFIG, "norm: LayerNorm is of towers");
    TRY(check_positive("", "eps", s->eps));
    TRY(check_positive("", "embed_scale", s->embed_scale));
    if (!isfinite(s->norm_offset)) return fail(E_CONFIG, "norm_offset is %g, must be finite", (double)s->norm_offset);
    for (int l = 0; l < s->n_layers; l++) TRY(check_layer(s, l));
    TRY(check_ropes(s));
    TRY(check_lengths(s));
    return check_names(s);
}

/* What is compared as bytes has no padding. */
enum { SPEC_NUMBERS = offsetof(struct spec, vision) + sizeof(struct vision_spec) };
_Static_assert(offsetof(struct spec, vision) == 10 * sizeof(int) + sizeof(enum norm_kind) + 3 * sizeof(float),
               "the numbers of a spec lie side by side");
_Static_assert(sizeof(struct vision_spec) == 14 * sizeof(int) + sizeof(enum table_kind) + sizeof(enum gelu_kind) +
                                                 MERGERS_MAX * sizeof(struct merger_spec) +
                                                 sizeof(struct attention_spec),
               "those of a tower");
_Static_assert(sizeof(struct layer_spec) == 15 * sizeof(int) + sizeof(float) + sizeof(enum sight), "those of a layer");
_Static_assert(sizeof(struct rope_spec) == (1 + HEAD_DIM_MAX) * sizeof(float), "those of a rope");

int spec_equal(const struct spec *a, const struct spec *b) {
    return !memcmp(a, b, SPEC_NUMBERS) && !memcmp(a->prefix, b->prefix, sizeof *a - offsetof(struct spec, prefix)) &&
           !memcmp(a->layers, b->layers, (size_t)a->n_layers * sizeof *a->layers) &&
           !memcmp(a->ropes, b->ropes, (size_t)a->n_ropes * sizeof *a->ropes);
}

struct widths layer_widths(const struct spec *s, int layer) {
    const struct layer_spec *l = &s->layers[layer];
    const struct attention_spec *a = &l->attention;
    return (struct widths){.model = s->d_model,
                           .qkv = qkv_width(a),
                           .heads = heads_width(a),
                           .mlp = l->mlp.width,
                           .up = l->mlp.width * (l->mlp.gated ? 2 : 1),
                           .n_heads = a->heads,
                           .n_kv_heads = a->kv_heads,
                           .head_dim = a->head_dim,
                           .post_norms = l->post_norms};
}

struct widths spec_widths(const struct spec *s) {
    struct widths most = {0};
    for (int i = 0; i < s->n_layers; i++) {
        struct widths w = layer_widths(s, i);
        most = (struct widths){.model = s->d_model,
                               .qkv = max_int(most.qkv, w.qkv),
                               .heads = max_int(most.heads, w.heads),
                               .mlp = max_int(most.mlp, w.mlp),
                               .up = max_int(most.up, w.up),
                               .n_heads = max_int(most.n_heads, w.n_heads),
                               .n_kv_heads = max_int(most.n_kv_heads, w.n_kv_heads),
                               .head_dim = max_int(most.head_dim, w.head_dim),
                               .post_norms = most.post_norms || w.post_norms};
    }
    return most;
}

/* The index of p's parameters: -1 of the whole network, then layers, then mergers or the resampler */
static enum scope scope_at(const struct spec *s, int layer) {
    return layer < 0 ? MODEL : layer < s->n_layers ? LAYER : s->vision.queries ? RESAMPLER : MERGER;
}

int spec_visit(const struct spec *s, param_visitor visit, void *arg, size_t *elements) {
    const struct vision_spec *v = &s->vision;
    size_t at = 0;
    for (int layer = -1; layer < n_parts(s); layer++) {
        enum scope scope = scope_at(s, layer);
        const struct layer_spec *l = &s->layers[scope == LAYER ? layer : 0];
        const struct attention_spec *a = &l->attention;
        const struct mlp_spec *m = &l->mlp;
        const struct merger_spec *g = &v->mergers[scope == MERGER ? layer - s->n_layers : 0];
#define P(slot_, scope_, columns, present, n0, r0, n1, r1, n2, r2)               \
    if (((scope_) == TOP ? MODEL : (scope_)) == scope && (present)) {            \
        struct param p = {.slot = P_##slot_,                                     \
                          .layer = layer,                                        \
                          .O = (r0) + (r1) + (r2),                               \
                          .C = (columns),                                        \
                          .rows = {r0, r1, r2},                                  \
                          .offset = at};                                         \
        if (!s->names[p.slot][1][0]) p.rows[0] = p.O, p.rows[1] = p.rows[2] = 0; \
        at += padded_size(&p);                                                   \
        if (visit) TRY(visit(arg, &p));                                          \
    }
#include "net/params.def"
#undef P
    }
    if (elements) *elements = at;
    return OK;
}

size_t spec_elements(const struct spec *s) {
    size_t elements = 0;
    spec_visit(s, NULL, NULL, &elements);
    return elements;
}

int tensor_shape(int shape[TENSOR_DIMS], const struct spec *s, const struct param *p, int piece) {
    shape[0] = p->rows[piece];
    shape[1] = p->C;
    if (p->slot != P_patch) return p->C ? 2 : 1;
    const int *patch = s->vision.patch_shape;
    memcpy(shape + 1, patch, sizeof s->vision.patch_shape);
    if (!s->vision.still) return TENSOR_DIMS;
    shape[2] = patch[2];
    shape[3] = patch[3];
    return TENSOR_DIMS - 1;
}

void tensor_name(char *name, size_t size, const struct spec *s, const struct param *p, int piece) {
    const char *own = s->names[p->slot][piece];
    switch (slots[p->slot].scope) {
    case TOP: snprintf(name, size, "%s", own); return;
    case MODEL:
    case RESAMPLER: snprintf(name, size, "%s%s", s->prefix, own); return;
    case LAYER: snprintf(name, size, "%s%s%d.%s", s->prefix, s->layer_prefix, p->layer, own); return;
    case MERGER: snprintf(name, size, "%s%s%s", s->prefix, s->merger_prefix[p->layer - s->n_layers], own); return;
    }
}
