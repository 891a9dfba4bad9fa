/* The amx tier on a CPU without AMX: the same kernels with the six tile instructions done in software, compared bit
   for bit with the portable tier, whose vdot adds pairs in the same order. The tile rules that hardware enforces with a
   fault are checked too. Built and run by test_gemm.py with csrc/cpu/cpu.c, tier_portable.c and csrc/base. */
#include "cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>

static void check(int good, const char *what) {
    if (good) return;
    printf("broken rule: %s\n", what);
    exit(1);
}

/* -- software tiles ------------------------------------------------------------------------------------------------ */
static _Thread_local struct { int configured; uint8_t rows[8]; uint8_t data[8][16][64]; } tiles_;

static void tile_configure(const uint8_t *config) {
    check(config[0] == 1, "palette is 1");
    for (int i = 1; i < 16; i++) check(config[i] == 0, "start row and reserved bytes are 0");
    for (int t = 0; t < 16; t++) {
        int width = config[16 + 2 * t] | config[17 + 2 * t] << 8, rows = config[48 + t];
        int good = t < 8 ? width == 64 && rows >= 1 && rows <= 16 : !width && !rows;
        check(good, "tiles 0..7 are 1..16 rows of 64 bytes");
        if (t < 8) tiles_.rows[t] = (uint8_t)rows;
    }
    memset(tiles_.data, 0, sizeof tiles_.data);
    tiles_.configured = 1;
}
static void tile_release(void) { tiles_.configured = 0; }
static void tile_zero(int t) {
    check(tiles_.configured, "configured before use");
    memset(tiles_.data[t], 0, sizeof tiles_.data[t]);
}
static void tile_load(int t, const void *p, size_t stride) {
    tile_zero(t);
    for (int i = 0; i < tiles_.rows[t]; i++) memcpy(tiles_.data[t][i], (const char *)p + (size_t)i * stride, 64);
}
static void tile_store(int t, void *p, size_t stride) {
    for (int i = 0; i < tiles_.rows[t]; i++) memcpy((char *)p + (size_t)i * stride, tiles_.data[t][i], 64);
}
static void tile_dot(int c, int a, int b) {
    check(tiles_.configured && tiles_.rows[c] == tiles_.rows[a] && tiles_.rows[b] == 16, "heights agree in TDPBF16PS");
    for (int i = 0; i < tiles_.rows[c]; i++) {
        float sum[16];
        bf16 x[32], y[32];
        memcpy(sum, tiles_.data[c][i], sizeof sum);
        memcpy(x, tiles_.data[a][i], sizeof x);
        for (int k = 0; k < 16; k++) {
            memcpy(y, tiles_.data[b][k], sizeof y);
            for (int j = 0; j < 16; j++) {
                sum[j] += bf16_to_float(x[2 * k]) * bf16_to_float(y[2 * j]);
                sum[j] += bf16_to_float(x[2 * k + 1]) * bf16_to_float(y[2 * j + 1]);
            }
        }
        memcpy(tiles_.data[c][i], sum, sizeof sum);
    }
}
#define TILE_CONFIGURE(config) tile_configure(config)
#define TILE_RELEASE() tile_release()
#define TILE_ZERO(t) tile_zero(t)
#define TILE_LOAD(t, p, stride) tile_load(t, p, stride)
#define TILE_STORE(t, p, stride) tile_store(t, p, stride)
#define TILE_DOT(c, a, b) tile_dot(c, a, b)

#define TIER emulated
#define GEMM_AMX
#include "cpu/tier.inc"

/* -- the comparison ------------------------------------------------------------------------------------------------ */
static uint32_t state = 1;
static float uniform(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

/* A backend with its operands for one shape; both get the same numbers, and NaN after the end of every array. */
struct side { const struct ops *ops; void *ctx, *x, *dy, *W, *y, *dx; float *b, *z, *dW, *db; };
enum { SLACK = 64 };

static void *filled(struct side *s, const float *values, size_t n, int as_bf16) {
    float *p = malloc((n + SLACK) * sizeof *p);
    memcpy(p, values, n * sizeof *p);
    for (int i = 0; i < SLACK; i++) p[n + i] = NAN;
    void *out = s->ops->alloc(s->ctx, (n + SLACK) * sizeof *p);
    check(p && out, "memory");
    if (as_bf16) s->ops->cast(s->ctx, out, p, n + SLACK);
    else s->ops->upload(s->ctx, out, p, (n + SLACK) * sizeof *p);
    free(p);
    return out;
}

static void run(struct side *s, const float *numbers, int N, int C, int O) {
    const struct ops *o = s->ops;
    struct op_limits need = {.rows = N, .head_rows = N, .channels = max_int(C, O), .vocab = O};
    check(!o->open(&s->ctx) && !o->reserve(s->ctx, &need), "reserve");
    size_t NC = (size_t)N * C, NO = (size_t)N * O, OC = (size_t)O * C;
    s->x = filled(s, numbers, NC, 1);
    s->dy = filled(s, numbers + 1, NO, 1);
    s->y = filled(s, numbers + 2, NO, 1);
    s->dx = filled(s, numbers + 3, NC, 1);
    s->b = filled(s, numbers + 4, (size_t)O, 0);
    s->z = filled(s, numbers + 5, NO, 0);
    s->dW = filled(s, numbers + 6, OC, 0);
    s->db = filled(s, numbers + 7, (size_t)O, 0);
    s->W = o->alloc(s->ctx, o->weight_bytes(O, C));
    o->weight_set(s->ctx, s->W, numbers + 8, 0, O, O, C);
    check(!o->linear_add(s->ctx, s->y, s->x, s->W, s->b, N, C, O), "linear_add");
    check(!o->logits(s->ctx, s->z, s->x, s->W, N, C, O), "logits");
    check(!o->linear_dx(s->ctx, s->dx, s->dy, s->W, N, C, O), "linear_dx");
    check(!o->linear_dw(s->ctx, s->dW, s->db, s->dy, s->x, N, C, O), "linear_dw");
}

static void finish(struct side *s) {
    void *all[] = {s->x, s->dy, s->W, s->y, s->dx, s->b, s->z, s->dW, s->db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) s->ops->release(s->ctx, all[i]);
    s->ops->close(s->ctx);
}

static int differs(const char *name, const void *a, const void *b, size_t bytes, int N, int C, int O) {
    if (!memcmp(a, b, bytes)) return 0;
    printf("%s differs at N=%d C=%d O=%d\n", name, N, C, O);
    return 1;
}

int main(void) {
    static const int shapes[][3] = {
        {1, 1, 1}, {1, 32, 32}, {2, 31, 33}, {5, 33, 40}, {15, 64, 96}, {16, 65, 64}, {17, 96, 31}, {31, 40, 70},
        {32, 64, 64}, {33, 100, 65}, {48, 97, 129}, {64, 128, 96}, {97, 66, 34}, {130, 160, 130}, {300, 70, 50},
        {530, 40, 36}, {20, 1056, 40}, {20, 40, 1090},
    };
    int failed = 0, count = sizeof shapes / sizeof *shapes;
    size_t most = 0;
    for (int i = 0; i < count; i++) {
        size_t N = (size_t)shapes[i][0], C = (size_t)shapes[i][1], O = (size_t)shapes[i][2];
        size_t need = N * C + N * O + O * C + 16;
        if (need > most) most = need;
    }
    float *numbers = malloc(most * sizeof *numbers);
    for (size_t i = 0; i < most; i++) numbers[i] = uniform();
    for (int i = 0; i < count; i++) {
        int N = shapes[i][0], C = shapes[i][1], O = shapes[i][2];
        size_t NC = (size_t)N * C, NO = (size_t)N * O, OC = (size_t)O * C;
        struct side amx = {.ops = &cpu_ops_emulated}, plain = {.ops = &cpu_ops_portable};
        run(&amx, numbers, N, C, O);
        run(&plain, numbers, N, C, O);
        failed |= differs("linear", amx.y, plain.y, (NO + SLACK) * sizeof(bf16), N, C, O);
        failed |= differs("logits", amx.z, plain.z, (NO + SLACK) * sizeof(float), N, C, O);
        failed |= differs("linear_dx", amx.dx, plain.dx, (NC + SLACK) * sizeof(bf16), N, C, O);
        failed |= differs("linear_dw", amx.dW, plain.dW, (OC + SLACK) * sizeof(float), N, C, O);
        failed |= differs("linear_dw db", amx.db, plain.db, ((size_t)O + SLACK) * sizeof(float), N, C, O);
        finish(&amx);
        finish(&plain);
    }
    free(numbers);
    printf("%d shapes\n", count);
    return failed;
}
