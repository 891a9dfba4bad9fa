/* Where the time goes, an op at a time: calls, seconds, floating-point operations and the fewest bytes an op must move
   (each operand once), as ops.def says. Off, it costs a branch a call; on, each call is waited for. */
#ifndef GRPO_PROFILE_H
#define GRPO_PROFILE_H

#include "ops/ops.h"

enum profiled {
#define MEMORY(result, name, parameters)
#define PLAN MEMORY
#define OP(name, ...) PROFILE_##name,
#define OP_BY_HAND OP
#include "ops/ops.def"
    PROFILE_OPS
};

struct work {
    double flops, bytes;
};
struct profile_line {
    const char *op;
    long calls;
    double seconds;
    struct work work;
};
extern int profile_on;
extern struct profile_line profile_lines[PROFILE_OPS];
void profile_start(void);             /* on, everything 0 */
void profile_add(enum profiled op, double seconds, struct work work);

/* What attention computes and reads, from segments and lengths that lie in backend memory and are fetched; 0 if they
   cannot be. Pairs of a query row and a key that it sees; keys that decode reads: what a row's pages share with the row
   before, which sees it too, counts once. */
double visible_pairs(const struct device *d, const struct segment *segments, int n, const struct attention_shape *a);
double decode_pairs(const struct device *d, const struct key_pages *keys, int S, int window);
double decode_reads(const struct device *d, const struct key_pages *keys, int S, int window);

#endif
