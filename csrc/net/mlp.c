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
    fields[n++] = (struct stash_field){here->gate_up, there->gate_up, 2 * w.mlp};
    if (w.post_norms) fields[n++] = (struct stash_field){here->result, there->result, w.model};
    return n;
}

int mlp_forward(struct activations *a, int l, int N, real *next, const struct stash_rows *copy) {
    const struct weights *w = a->weights;
    const struct layer_spec *spec = &w->spec.layers[l];
    struct mlp_stash *s = &a->stash.layers[l].mlp;
    struct stash_field fields[FIELDS];
    int n_fields = copy ? fields_of(fields, a, l, copy->stashes) : 0;
    /* the input first: the residual stream may be updated in place */
    if (n_fields) TRY(stash_save(&w->device, fields, 1, copy->rows, N));
    TRY(norm(w, l, P_mlp_norm, a->normed, a->rstd, s->x, N));
    TRY(project(w, l, P_gate_up, s->gate_up, a->normed, N));
    if (!next && !spec->post_norms) return OK;
    TRY(op_glu(&w->device, a->gated, s->gate_up, spec->mlp.gate, N, spec->mlp.width));
    if (spec->post_norms) TRY(project(w, l, P_down, s->result, a->gated, N));
    if (!next) return OK;
    if (next != s->x) TRY(op_copy(&w->device, next, s->x, stream_bytes(w, N)));
    if (spec->post_norms) TRY(norm_add(w, l, P_mlp_post_norm, next, a->rstd, s->result, N));
    else TRY(project_add(w, l, P_down, next, a->gated, N));
    return n_fields ? stash_save(&w->device, fields + 1, n_fields - 1, copy->rows, N) : OK;
}

int mlp_load(struct activations *a, int l, int N, const struct stash_rows *from) {
    struct stash_field fields[FIELDS];
    int n = fields_of(fields, a, l, from->stashes);
    return a->stash.what == STASH_INPUTS ? OK : stash_load(&a->weights->device, fields, n, from->rows, N);
}

int mlp_backward(struct activations *a, int l, int N, float *grads) {
    const struct weights *w = a->weights;
    const struct mlp_spec *spec = &w->spec.layers[l].mlp;
    struct mlp_stash *s = &a->stash.layers[l].mlp;
    int post = w->spec.layers[l].post_norms;
    real *dresult = post ? a->dresult : a->dx;
    real *dgated = a->gated, *dgate_up = s->gate_up; /* in the buffers of what they are the gradients of */
    if (post) TRY(norm_backward(w, l, P_mlp_post_norm, dresult, grads, a->dx, s->result, a->normed, a->rstd, N));
    TRY(op_glu(&w->device, a->gated, s->gate_up, spec->gate, N, spec->width));
    TRY(project_dw(w, l, P_down, grads, dresult, a->gated, N));
    TRY(project_dx(w, l, P_down, dgated, dresult, N));
    TRY(op_glu_bwd(&w->device, dgate_up, dgated, s->gate_up, spec->gate, N, spec->width));
    TRY(norm(w, l, P_mlp_norm, a->normed, a->rstd, s->x, N));
    TRY(project_dw(w, l, P_gate_up, grads, dgate_up, a->normed, N));
    TRY(project_dx(w, l, P_gate_up, a->dnormed, dgate_up, N));
    return norm_backward_add(w, l, P_mlp_norm, a->dx, grads, a->dnormed, s->x, a->rstd, N);
}
