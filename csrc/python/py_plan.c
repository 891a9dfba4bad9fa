#include "rl/plan.h"
#include "model/kept.h"
#include "rl/rollout.h"

struct plan { struct plan_line *lines; int n; };

static void add(struct plan *p, const char *arena, size_t bytes) {
    if (bytes) p->lines[p->n++] = (struct plan_line){arena, bytes};
}

int plan_memory(struct plan_line *lines, int *n, const char *device, const struct plan_request *r) {
    const struct ops *ops;
    const struct config *c = &r->config;
    TRY(config_check(c));
    TRY(ops_find(&ops, device));
    int rows, head_rows;
    int64_t step_rows;
    batch_limits_of(&rows, &head_rows, &step_rows, r->step_prompts, r->num_generations, r->prompt_length, r->max_new_tokens, r->token_budget);
    size_t weights = model_weight_bytes(ops, c), elements = model_elements(c);
    struct trainer_sizes size = trainer_sizes(ops, c, r->moments, r->masters);
    struct plan p = {lines, 0};
    add(&p, "weights", weights);
    if (r->reference) add(&p, "reference weights", weights);
    if (r->reference) add(&p, "activations of the reference", activations_bytes(ops, c, KEEP_NONE, rows, head_rows));
    if (r->mixed) add(&p, "mixing of the reference", 2 * elements * sizeof(float));
    if (r->train) {
        add(&p, "gradients (float32)", size.grads);
        add(&p, "master bits beyond bfloat16", size.lower);
        add(&p, moment_arena(r->moments), size.moments);
        add(&p, "gradients of embedded tokens", (size_t)embed_room((int)step_rows) * embed_row_bytes(ops, c));
    }
    add(&p, "kept activations of rollouts", (size_t)r->keep_rows * kept_row_bytes(ops, c, r->recompute ? KEEP_ROW_INPUTS : KEEP_ROWS));
    /* one workspace serves both, in turn */
    size_t update = r->train ? activations_bytes(ops, c, r->recompute ? KEEP_INPUTS : KEEP_ALL, rows, head_rows) : 0;
    size_t generate = r->slots ? rollout_bytes(ops, c, r->slots, r->rollout_prompts, r->prompt_length, r->max_new_tokens) : 0;
    if (update > generate) add(&p, "activations of the update", update);
    else add(&p, "KV cache of the rollout", generate);
    *n = p.n;
    return OK;
}
