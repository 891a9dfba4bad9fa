#include "net/mlp.h"

#include "base/base.h"
#include "net/norms.h"
#include "net/project.h"

enum { FIELDS = 3 };                     /* of a stash; x is the first */

static int fields_of(struct stash_field fields[FIELDS], const struct activations *a, int l,
                     const struct stashes *store) {
    const struct mlp_stash *here = &a->stash.layers[l].mlp, *there = &store->layers[l].mlp;
    struct widths w = layer_widths(&a->weights->spec, l);
    int n = 0;
    if (store->what == STASH_INPUTS) return n;
    fields[n++] = (struct stash_field){here->x, there->x, w.model};
    fields[n++] = (struct stash_field){here->gate_up, there->gate_up, w.up};
    if (w.post_norms) fields[n++] = (struct stash_field){here->result, there->result, w.model};
    return n;
}

/* y (N, F) from gate_up */
static int activate(const struct weights *w, int l, real *y, const real *gate_up, int N) {
    const struct mlp_spec *m = &w->spec.layers[l].mlp;
    return m->gated ? op_glu(&w->device, y, gate_up, (enum glu_gate)m->gate, N, m->width)
                    : op_gelu(&w->device, y, gate_up, (enum gelu_kind)m->gate, N, m->width);
}

int mlp_forward(struct activations *a, int l, int N, real *next, const struct stash_rows *copy) {
    const struct weights *w = a->weights;
    const struct layer_spec *spec = &w->spec.layers[l];
    struct mlp_stash *s = &a->stash.layers[l].mlp;
    struct stash_field fields[FIELDS];
    int n_fields = copy ? fields_of(fields, a, l, copy->stashes) : 0;
    /* the input first: the residual stream may be updated in place */
    if (n_fields) TRY(stash_save(&w->device, fields, 1, copy->rows, N));
    TRY(norm(w, l, P_mlp_norm, a->normed, a->stats, s->x, N));
    TRY(project(w, l, P_gate_up, s->gate_up, a->normed, N));
    if (!next && !spec->post_norms) return OK;
    TRY(activate(w, l, a->gated, s->gate_up, N));
    if (spec->post_norms) TRY(project(w, l, P_down, s->result, a->gated, N));
    if (!next) return OK;
    if (next != s->x) TRY(op_copy(&w->device, next, s->x, stream_bytes(w, N)));
    if (spec->post_norms) TRY(norm_add(w, l, P_mlp_post_norm, next, a->stats, s->result, N));
    else TRY(project_add(w, l, P_down, next, a->gated, N));
    return n_fields ? stash_save(&w->device, fields + 1, n_fields - 1, copy->rows, N) : OK;
}

int mlp_load(struct activations *a, int l, int N, const struct stash_rows *from) {
    struct stash_field fields[FIELDS];
    int n = fields_of(fields, a, l, from->stashes);
    return a->stash.what == STASH_INPUTS ? OK : stash_load(&a->weights->device, fields, n, from->rows, N);
}

int mlp_backward(struct activations *a, int l, int N, const struct gradients *grads) {
    const struct weights *w = a->weights;
    const struct mlp_spec *spec = &w->spec.layers[l].mlp;
    struct mlp_stash *s = &a->stash.layers[l].mlp;
    int post = w->spec.layers[l].post_norms;
    real *dresult = post ? a->dresult : a->dx;
    real *dgated = a->gated, *dgate_up = spec->gated ? s->gate_up : dgated; /* where what they differentiate was */
    if (post) TRY(norm_backward(w, l, P_mlp_post_norm, dresult, grads, a->dx, s->result, a->normed, a->stats, N));
    TRY(activate(w, l, a->gated, s->gate_up, N));
    TRY(project_dw(w, l, P_down, grads, dresult, a->gated, N));
    TRY(project_dx(w, l, P_down, dgated, dresult, N));
    TRY(spec->gated ? op_glu_bwd(&w->device, dgate_up, dgated, s->gate_up, (enum glu_gate)spec->gate, N, spec->width)
                    : op_gelu_bwd(&w->device, dgated, s->gate_up, (enum gelu_kind)spec->gate, N, spec->width));
    TRY(norm(w, l, P_mlp_norm, a->normed, a->stats, s->x, N));
    TRY(project_dw(w, l, P_gate_up, grads, dgate_up, a->normed, N));
    TRY(project_dx(w, l, P_gate_up, a->dnormed, dgate_up, N));
    return norm_backward_add(w, l, P_mlp_norm, a->dx, grads, a->dnormed, s->x, a->stats, N);
}
