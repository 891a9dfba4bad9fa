/* Master weights: the working weights, and the bits beyond them that are a trainer's own. */
#include <stdlib.h>

#include "base/base.h"
#include "train/trainer.h"

/* Weights that somebody else has changed are what the masters begin from anew: exactly, without the bits that
   belonged to others. */
int follow_weights(const struct trainer *t, struct param_group *g) {
    const struct weights *w = g->weights;
    if (g->version != w->version && g->lower)
        TRY(op_zero(&w->device, g->lower, g->n_elements * lower_element(t->config.masters)));
    g->version = w->version;
    return OK;
}

struct param_group *group_of(struct trainer *t, const struct tensor *tensor) {
    for (int k = 0; k < t->n_groups; k++) {
        struct param_group *g = &t->groups[k];
        const struct param *params = g->weights->params, *p = tensor->param;
        if (p >= params && p < params + g->weights->n_params) return g->at[p - params] == NOT_TRAINED ? NULL : g;
    }
    return NULL;
}

/* Where a tensor's masters have the bits that its working weights lack */
static void *lower_of(const struct trainer *t, const struct param_group *g, const struct tensor *tensor) {
    return (char *)g->lower + group_offset(g, tensor) * lower_element(t->config.masters);
}

int trainer_get_master(struct trainer *t, float *host, const struct tensor *tensor) {
    struct param_group *g = group_of(t, tensor);
    if (!g) return fail(E_CONFIG, "this tensor is not trained");
    TRY(follow_weights(t, g));
    TRY(weights_get(g->weights, tensor, host));
    if (!g->lower) return OK;
    size_t n = tensor_size(tensor), bytes = n * lower_element(t->config.masters);
    void *lower = malloc(bytes);
    if (!lower) return fail(E_MEMORY, "no memory for %zu numbers", n);
    int status = device_download(&g->weights->device, lower, lower_of(t, g, tensor), bytes);
    for (size_t i = 0; i < n && !status; i++)
        host[i] =
            float_from_bits(join_bits((bf16)(float_bits(host[i]) >> 16), load_lower(lower, i, t->config.masters)));
    free(lower);
    return status;
}

static uint32_t master_bits_of(const struct trainer *t, float x) {
    return t->config.masters == MASTER_FLOAT24 ? nearest_float24(float_bits(x)) : float_bits(x);
}

/* The trainer's own bits of host, whose working weights have been set to upper (both HOST). float24 beside float32:
   what would carry into the working weight is cut off instead. */
static int set_lower(const struct trainer *t, const struct param_group *g, const struct tensor *tensor,
                     const float *upper, const float *host, void *staged) {
    size_t n = tensor_size(tensor);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = master_bits_of(t, host[i]);
        int joins = upper_of(bits) == (bf16)(float_bits(upper[i]) >> 16);
        store_lower(staged, i, joins ? bits : float_bits(host[i]) & ~0xffu, t->config.masters);
    }
    return device_upload(&g->weights->device, lower_of(t, g, tensor), staged, n * lower_element(t->config.masters));
}

/* The next trainer, from t on, that trains the tensor */
static struct trainer *trains(struct trainer *t, const struct tensor *tensor) {
    while (t && !group_of(t, tensor)) t = t->next;
    return t;
}

/* Whose rounding decides on the working weights: one that loses nothing, if there is one. Numbers that float24 holds
   are the same to both. */
static const struct trainer *finest(struct trainer *first, const struct tensor *tensor) {
    for (struct trainer *t = first; t; t = trains(t->next, tensor))
        if (t->config.masters == MASTER_FLOAT32) return t;
    return first;
}

static int set_piece(struct trainer *first, struct weights *w, const struct tensor *piece, const float *host,
                     float *upper, void *staged) {
    const struct trainer *decides = finest(first, piece);
    for (size_t i = 0; i < tensor_size(piece); i++)
        upper[i] = bf16_to_float(upper_of(master_bits_of(decides, host[i])));
    TRY(weights_set(w, piece, upper));
    for (struct trainer *t = first; t; t = trains(t->next, piece)) {
        struct param_group *g = group_of(t, piece);
        TRY(set_lower(t, g, piece, upper, host, staged));
        g->version = w->version;
    }
    return OK;
}

/* Every trainer's masters go with the working weights as they are now, and with those to come: nobody else changes
   them. */
static int follow_all(struct trainer *first, const struct weights *w, int now_set) {
    for (struct trainer *t = first; t; t = t->next)
        for (int k = 0; k < t->n_groups; k++) {
            struct param_group *g = &t->groups[k];
            if (g->weights != w) continue;
            if (now_set) g->version = w->version;
            else TRY(follow_weights(t, g));
        }
    return OK;
}

static int set_pieces(struct trainer *first, struct weights *w, const struct tensor *tensor, const float *host) {
    struct tensor piece = {0};
    tensor_next(&piece, tensor);
    float *upper = malloc(tensor_size(&piece) * (sizeof(float) + sizeof(uint16_t)));
    if (!upper) return fail(E_MEMORY, "no memory for %zu numbers", tensor_size(&piece));
    void *staged = upper + tensor_size(&piece);
    int status = OK;
    for (; !status && piece.rows > 0; host += tensor_size(&piece), tensor_next(&piece, tensor))
        status = set_piece(first, w, &piece, host, upper, staged);
    free(upper);
    return status;
}

int trainers_set_weights(struct trainer *all, struct weights *w, const struct tensor *tensor, const float *host) {
    struct trainer *first = trains(all, tensor);
    TRY(follow_all(all, w, 0));
    if (first && group_of(first, tensor)->lower) TRY(set_pieces(first, w, tensor, host));
    else TRY(weights_set(w, tensor, host));        /* masters, if any, are the working weights themselves */
    return follow_all(all, w, 1);
}

int trainer_check_master(struct trainer *t, const struct tensor *tensor, const float *host) {
    if (!group_of(t, tensor)) return fail(E_CONFIG, "this tensor is not trained");
    for (size_t i = 0; i < tensor_size(tensor) && t->config.masters == MASTER_FLOAT24; i++)
        if (float_bits(host[i]) & 0xff)
            return fail(E_CONFIG, "%.9g is no float24 number, and the trainer's master weights are float24",
                        (double)host[i]);
    return OK;
}
