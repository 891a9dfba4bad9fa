#include "net/spec.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

enum { ALIGN_ELEMENTS = 16, SIZE_MAX_VALUE = 1 << 24 };

static const struct {
    enum scope scope;
    const char *names[PIECES];
} slots[SLOTS] = {
#define P(slot, scope_, columns, present, n0, r0, n1, r1, n2, r2) [P_##slot] = {scope_, {n0, n1, n2}},
#include "net/params.def"
#undef P
};

int spec_create(struct spec *s, int n_layers, int n_ropes) {
    *s = (struct spec){.n_layers = n_layers, .n_ropes = n_ropes, .embed_scale = 1, .prefix = "model."};
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

static int check_layer(const struct spec *s, int index) {
    const struct attention_spec *a = &s->layers[index].attention;
    const struct mlp_spec *m = &s->layers[index].mlp;
    char where[32];
    snprintf(where, sizeof where, "layer %d: ", index);
    TRY(check_size(where, "heads", a->heads, SIZE_MAX_VALUE));
    TRY(check_size(where, "kv_heads", a->kv_heads, SIZE_MAX_VALUE));
    TRY(check_size(where, "head_dim", a->head_dim, HEAD_DIM_MAX));
    TRY(check_size(where, "width", m->width, SIZE_MAX_VALUE));
    if (a->head_dim % 2) return fail(E_CONFIG, "%shead_dim is %d, must be even", where, a->head_dim);
    if (a->heads % a->kv_heads)
        return fail(E_CONFIG, "%sheads (%d) is not a multiple of kv_heads (%d)", where, a->heads, a->kv_heads);
    if (a->window < 0) return fail(E_CONFIG, "%swindow is %d, must be 0 (none) or positive", where, a->window);
    if (!(a->scale > 0)) return fail(E_CONFIG, "%sscale is %g, must be positive", where, (double)a->scale);
    if (a->rope < 0 || a->rope >= s->n_ropes)
        return fail(E_CONFIG, "%srope is %d, and the spec has %d", where, a->rope, s->n_ropes);
    return OK;
}

/* One rope turns heads of one width */
static int check_ropes(const struct spec *s) {
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

int spec_check(const struct spec *s) {
    TRY(check_size("", "hidden_size", s->d_model, SIZE_MAX_VALUE));
    TRY(check_size("", "vocab_size", s->vocab_size, SIZE_MAX_VALUE));
    if (!(s->eps > 0)) return fail(E_CONFIG, "eps is %g, must be positive", (double)s->eps);
    if (!(s->embed_scale > 0)) return fail(E_CONFIG, "embed_scale is %g, must be positive", (double)s->embed_scale);
    if (s->max_positions < 0)
        return fail(E_CONFIG, "max_positions is %d, must be 0 (no limit) or positive", s->max_positions);
    for (int l = 0; l < s->n_layers; l++) TRY(check_layer(s, l));
    return check_ropes(s);
}

int spec_equal(const struct spec *a, const struct spec *b) {
    size_t numbers = offsetof(struct spec, embed_scale) + sizeof a->embed_scale; /* up to there it has no padding */
    return !memcmp(a, b, numbers) && !memcmp(a->prefix, b->prefix, sizeof a->prefix) &&
           !memcmp(a->names, b->names, sizeof a->names) &&
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
                               .n_heads = max_int(most.n_heads, w.n_heads),
                               .n_kv_heads = max_int(most.n_kv_heads, w.n_kv_heads),
                               .head_dim = max_int(most.head_dim, w.head_dim),
                               .post_norms = most.post_norms || w.post_norms};
    }
    return most;
}

int spec_visit(const struct spec *s, param_visitor visit, void *arg, size_t *elements) {
    size_t at = 0;
    for (int layer = -1; layer < s->n_layers; layer++) {
        const struct layer_spec *l = &s->layers[max_int(0, layer)];
        const struct attention_spec *a = &l->attention;
        const struct mlp_spec *m = &l->mlp;
#define P(slot_, scope_, columns, present, n0, r0, n1, r1, n2, r2)                     \
    if (((scope_) == LAYER) == (layer >= 0) && (present)) {                            \
        struct param p = {.slot = P_##slot_,                                           \
                          .layer = layer,                                              \
                          .O = (r0) + (r1) + (r2),                                     \
                          .C = (columns),                                              \
                          .rows = {r0, r1, r2},                                        \
                          .offset = at};                                               \
        at += (param_size(&p) + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS; \
        if (visit) TRY(visit(arg, &p));                                                \
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

void tensor_name(char *name, size_t size, const struct spec *s, const struct param *p, int piece) {
    const char *own = s->names[p->slot][piece];
    enum scope scope = slots[p->slot].scope;
    if (scope == LAYER) snprintf(name, size, "%slayers.%d.%s", s->prefix, p->layer, own);
    else snprintf(name, size, "%s%s", scope == TOP ? "" : s->prefix, own);
}
