#include "model/profile.h"

int profile_on;
struct profile_line profile_lines[PROFILE_OPS] = {
#define X(name) {.op = #name},
    PROFILED(X)
#undef X
};

void profile_start(void) {
    for (int i = 0; i < PROFILE_OPS; i++) profile_lines[i] = (struct profile_line){.op = profile_lines[i].op};
    profile_on = 1;
}

void profile_add(enum profiled op, double seconds, struct work work) {
    struct profile_line *line = &profile_lines[op];
    line->calls++;
    line->seconds += seconds;
    line->work.flops += work.flops;
    line->work.bytes += work.bytes;
}
