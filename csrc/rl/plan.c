#include "rl/plan.h"
#include "model/kept.h"
#include "rl/rollout.h"

int plan_memory(struct plan_line *lines, int *n, const char *device, const struct plan_request *r) {
    const struct ops *ops;
    const struct config *c = &r->config;
    TRY(config_check(c));
    TRY(ops_find(&ops, device));
    size_t weights = model_weight_bytes(ops, c);
    struct trainer_sizes size = trainer_sizes(ops, model_elements(c), r->bf16_moments);
    int rows = round_up(r->token_budget, ROW_ALIGN);
    *n = 0;
    lines[(*n)++] = (struct plan_line){"weights", weights};
    if (r->reference) lines[(*n)++] = (struct plan_line){"reference weights", weights};
    if (r->train) {
        lines[(*n)++] = (struct plan_line){"gradients (float32)", size.grads};
        if (size.lower) lines[(*n)++] = (struct plan_line){"master bits beyond bfloat16", size.lower};
        lines[(*n)++] = (struct plan_line){r->bf16_moments ? "AdamW moments (bfloat16)" : "AdamW moments (float32)", size.moments};
        lines[(*n)++] = (struct plan_line){"gradients of embedded tokens", (size_t)embed_room(r->step_rows) * embed_row_bytes(ops, c)};
    }
    size_t update = r->train ? activations_bytes(ops, c, r->recompute ? KEEP_INPUTS : KEEP_ALL, rows, rows) : 0;
    size_t generate = r->slots ? rollout_bytes(ops, c, r->slots, r->prompt_length, r->max_new_tokens) : 0;
    if (r->keep_rows) lines[(*n)++] = (struct plan_line){"kept activations of rollouts", (size_t)r->keep_rows * kept_row_bytes(ops, c)};
    /* one workspace serves both, in turn */
    lines[(*n)++] = update > generate ? (struct plan_line){"activations of the update", update}
                                      : (struct plan_line){"KV cache of the rollout", generate};
    return OK;
}
