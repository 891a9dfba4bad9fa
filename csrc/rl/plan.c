#include "rl/plan.h"
#include "model/kept.h"
#include "rl/rollout.h"

int plan_memory(struct plan_line *lines, int *n, const char *device, const struct plan_request *r) {
    const struct ops *ops;
    const struct config *c = &r->config;
    TRY(config_check(c));
    TRY(ops_find(&ops, device));
    size_t weights = model_weight_bytes(ops, c), fp32 = model_elements(c) * sizeof(float);
    int rows = round_up(r->token_budget, ROW_ALIGN);
    *n = 0;
    lines[(*n)++] = (struct plan_line){"weights", weights};
    if (r->reference) lines[(*n)++] = (struct plan_line){"reference weights", weights};
    if (r->train) {
        lines[(*n)++] = (struct plan_line){"gradients (fp32)", fp32};
        lines[(*n)++] = (struct plan_line){"master weights (fp32)", fp32};
        lines[(*n)++] = (struct plan_line){"AdamW moments (fp32)", 2 * fp32};
    }
    size_t update = r->train ? activations_bytes(ops, c, r->recompute ? KEEP_INPUTS : KEEP_ALL, rows, rows) : 0;
    size_t generate = r->slots ? rollout_bytes(ops, c, r->slots, r->prompt_length, r->max_new_tokens) : 0;
    if (r->keep_rows) lines[(*n)++] = (struct plan_line){"kept activations of rollouts", (size_t)r->keep_rows * kept_row_bytes(ops, c)};
    /* one workspace serves both, in turn */
    lines[(*n)++] = update > generate ? (struct plan_line){"activations of the update", update}
                                      : (struct plan_line){"KV cache of the rollout", generate};
    return OK;
}
