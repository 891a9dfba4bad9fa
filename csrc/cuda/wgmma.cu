/* Whether products run on wgmma (gemm90.cuh) in this process: where the GPU and this build have it, GRPO_CUDA_WGMMA
   does not say 0, and first products of small integers, by every tile and in every orientation, come out exactly. */
#include "cuda/gemm.cuh"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* Sizes of the first products: no multiples of the tiles', and sums that bf16 holds. */
enum { TOKENS = 72, INPUTS = 136, OUTPUTS = 200, LARGEST = OUTPUTS * INPUTS };
enum verdict { UNTRIED, EXACT, WRONG };

static struct {
    pthread_mutex_t lock;
    enum verdict verdict;
    char name[160];
} process = {PTHREAD_MUTEX_INITIALIZER, UNTRIED, ""};

/* -1, 0 or 1 */
static int digit(int matrix, int row, int col) {
    return (int)((uint32_t)(matrix * 977 + row * 131 + col) * 2654435761u >> 24) % 3 - 1;
}

/* A matrix of digits (rows, cols) on the device */
static int upload_digits(void *ctx, bf16 *to, int matrix, int rows, int cols) {
    bf16 *host = (bf16 *)malloc((size_t)rows * cols * sizeof *host);
    if (!host) return fail(E_MEMORY, "no memory for the first products of device 'cuda'");
    for (int i = 0; i < rows * cols; i++) host[i] = bf16_from_float((float)digit(matrix, i / cols, i % cols));
    int status = cuda_upload(ctx, to, host, (size_t)rows * cols * sizeof *host);
    free(host);
    return status;
}

enum { X, W, DY };
/* x (TOKENS, INPUTS), w (OUTPUTS, INPUTS), dy (TOKENS, OUTPUTS), and results */
struct operands {
    bf16 *x, *w, *dy, *rounded;
    float *sums;
};

/* *wrong |= whether a result (M, N) is not what its digits make. at_a(i, k), at_b(j, k): the operands' elements */
template <typename T, typename A, typename B>
static int compare(bool *wrong, void *ctx, const T *result, int M, int N, int K, A at_a, B at_b) {
    T *got = (T *)malloc((size_t)M * N * sizeof *got);
    if (!got) return fail(E_MEMORY, "no memory for the first products of device 'cuda'");
    int status = cuda_download(ctx, got, result, (size_t)M * N * sizeof *got);
    for (int i = 0; i < M * N && !status; i++) {
        int sum = 0;
        for (int k = 0; k < K; k++) sum += at_a(i / N, k) * at_b(i % N, k);
        *wrong |= (sizeof *got == sizeof(bf16) ? bf16_to_float((bf16)got[i]) : (float)got[i]) != (float)sum;
    }
    free(got);
    return status;
}

static int check_tile(bool *wrong, struct cuda_ctx *ctx, const struct operands *p) {
    struct matrix x = activations(p->x, TOKENS, INPUTS), w = weight_rows(p->w, 0, OUTPUTS, INPUTS);
    struct matrix dy = activations(p->dy, TOKENS, OUTPUTS);
    auto x_at = [](int n, int c) { return digit(X, n, c); };
    auto w_at = [](int o, int c) { return digit(W, o, c); };
    auto dy_at = [](int n, int o) { return digit(DY, n, o); };
    auto x_across = [](int c, int n) { return digit(X, n, c); };
    auto w_across = [](int c, int o) { return digit(W, o, c); };
    auto dy_across = [](int o, int n) { return digit(DY, n, o); };
    TRY(forward_product(ctx, (struct product){x, w, TOKENS, OUTPUTS, INPUTS},
                        rounded_to(p->rounded, NULL, false, OUTPUTS)));
    TRY(compare(wrong, ctx, p->rounded, TOKENS, OUTPUTS, INPUTS, x_at, w_at));
    TRY(gradient_product(ctx, (struct product){dy, w, TOKENS, INPUTS, OUTPUTS},
                         rounded_to(p->rounded, NULL, false, INPUTS)));
    TRY(compare(wrong, ctx, p->rounded, TOKENS, INPUTS, OUTPUTS, dy_at, w_across));
    TRY(cuda_zero(ctx, p->sums, LARGEST * sizeof(float)));
    TRY(add_to_weight_gradient(ctx, p->sums, (struct product){dy, x, OUTPUTS, INPUTS, TOKENS}));
    return compare(wrong, ctx, p->sums, OUTPUTS, INPUTS, TOKENS, dy_across, x_across);
}

static int check_tiles(bool *wrong, const struct cuda_ctx *ctx, const struct operands *p) {
    static const int tiles[][2] = {{128, 256}, {128, 128}, {64, 64}, {64, 32}, {64, 16}};
    struct cuda_ctx c = *ctx;
    c.wgmma = true;
    TRY(upload_digits(&c, p->x, X, TOKENS, INPUTS));
    TRY(upload_digits(&c, p->w, W, OUTPUTS, INPUTS));
    TRY(upload_digits(&c, p->dy, DY, TOKENS, OUTPUTS));
    for (auto &tile : tiles) {
        c.tile_m = tile[0], c.tile_n = tile[1];
        TRY(check_tile(wrong, &c, p));
    }
    return OK;
}

/* process.verdict, with the lock held */
static int first_products(struct cuda_ctx *ctx) {
    enum { REALS = LARGEST * sizeof(bf16), FLOATS = LARGEST * sizeof(float) };
    bool wrong = false;
    char *memory = (char *)cuda_alloc(ctx, 4 * REALS + FLOATS);
    if (!memory) return fail(E_MEMORY, "cuda: no memory for the first products");
    bf16 *reals = (bf16 *)memory;
    struct operands p = {reals, reals + LARGEST, reals + 2 * LARGEST, reals + 3 * LARGEST,
                         (float *)(memory + 4 * REALS)};
    int status = check_tiles(&wrong, ctx, &p);
    cuda_release(ctx, memory);
    if (status) fprintf(stderr, "grpo: cuda: a first product by wgmma failed; GRPO_CUDA_WGMMA=0 does without\n");
    else if (wrong)
        fprintf(stderr, "grpo: cuda: wgmma gives wrong products on this GPU: mma.sync computes them, more slowly\n");
    if (!status) process.verdict = wrong ? WRONG : EXACT;
    return status;
}

/* Why not; NULL: it may. */
static const char *objection(const struct cuda_ctx *ctx, const char *wanted) {
    if (ctx->sm != 90) return "this GPU has no wgmma";
    if (!strstr(GRPO_CUDA_ARCHS, "90")) return "this build has no code for 9.0: GRPO_CUDA_ARCHS=native";
    return wanted && !strcmp(wanted, "0") ? "GRPO_CUDA_WGMMA=0" : NULL;
}

int choose_wgmma(struct cuda_ctx *ctx) {
    const char *wanted = getenv("GRPO_CUDA_WGMMA"), *why = objection(ctx, wanted);
    if (wanted && *wanted && strcmp(wanted, "0") && strcmp(wanted, "1"))
        return fail(E_CONFIG, "GRPO_CUDA_WGMMA=%.40s: must be 0 or 1", wanted);
    pthread_mutex_lock(&process.lock);
    int status = why || process.verdict != UNTRIED ? OK : first_products(ctx);
    if (!why && process.verdict == WRONG) why = "wgmma gave wrong products on this GPU";
    ctx->wgmma = !why && !status;
    snprintf(process.name, sizeof process.name, why ? "mma.sync (%s)" : "wgmma", why);
    pthread_mutex_unlock(&process.lock);
    return status;
}

int products_name(const char **name) {
    void *ctx;
    TRY(cuda_open(&ctx));
    cuda_close(ctx);
    *name = process.name;
    return OK;
}
