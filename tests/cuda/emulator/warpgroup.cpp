/* Products of warpgroups, after the PTX ISA's sections on wgmma: what a descriptor says and where an element of D lies
   is told from that text, not from the kernels. A product is computed when it begins, or, with
   GRPO_CUDA_HOST_COPY=early, when it is waited for, so that both what is read too early and what is overwritten too
   early shows. Errors: a product without a fence before it; operands that a thread has copied without the fence that
   lets wgmma see them; lanes that say different things. GRPO_CUDA_HOST_WGMMA=wrong: a GPU that has another idea of what
   this text says. */
#include "cuda/ptx90.cuh"
#include "races.h"

#include <string>
#include <vector>

namespace {

enum { CHUNK = 16 };
struct pending { cuda_host_wgmma operation; int group; };
struct thread {
    bool fenced;
    int groups;                                        /* committed */
    std::vector<pending> products;
    std::vector<size_t> copied;                        /* chunks of shared memory, since its last fence */
} threads[1024];
bool unseen[(256 << 10) / CHUNK];                      /* chunks that wgmma must not read yet */
thread *self() { return &threads[threadIdx.x]; }

/* The fields of a matrix descriptor; offsets and addresses are kept without their lowest four bits. */
struct descriptor {
    uint64_t bits;
    uint32_t field(int from, int count) const { return (uint32_t)(bits >> from & ((1u << count) - 1)); }
    uint32_t start() const { return field(0, 14) << 4; }
    uint32_t leading() const { return field(16, 14) << 4; }
    uint32_t stride() const { return field(32, 14) << 4; }
    uint32_t base_offset() const { return field(49, 3); }
    uint32_t swizzle() const { return field(62, 2); }
};
enum { SWIZZLE_128 = 1, ATOM = 1024 };

/* Element (i, k), i along 64 or N. The layout is made of atoms of eight rows of 128 bytes. By k: a row is an i, atoms
   follow each other along i at `stride`. By rows: a row is a k and holds 64 of i; atoms follow along k at `stride`,
   along i at `leading`. Bits 4..6 of the address are then xored with bits 7..9. */
bf16 element(descriptor d, bool by_rows, uint32_t i, uint32_t k) {
    uint32_t at = d.start();
    if (by_rows) at += i / 64 * d.leading() + i % 64 * 2 + k / 8 * d.stride() + k % 8 * 128;
    else at += i / 8 * d.stride() + i % 8 * 128 + k * 2;
    at ^= at >> 3 & 0x70;
    size_t offset = at - (size_t)CUDA_HOST_SHARED_START;
    bool inside = offset + 2 <= cuda_host_shared_bytes();
    if (!inside) cuda_host_complain("wgmma reads beyond shared memory");
    else if (unseen[offset / CHUNK]) cuda_host_complain("wgmma reads what was copied without fence_shared_for_wgmma()");
    if (inside) cuda_host_races_read(cuda_host_shared() + offset, 2);
    return inside ? *(const bf16 *)(cuda_host_shared() + offset) : 0;
}

/* One warp's sixteen rows. */
void multiply(const void *const in[32], void *const[]) {
    const cuda_host_wgmma *lane[32];
    static float A[16][16], B[256][16];
    for (int l = 0; l < 32; l++) lane[l] = (const cuda_host_wgmma *)in[l];
    const cuda_host_wgmma &first = *lane[0];
    descriptor a = {first.a}, b = {first.b};
    const uint32_t terms = getenv("GRPO_CUDA_HOST_WGMMA") ? 15 : 16;
    for (int l = 0; l < 32; l++)
        if (lane[l]->a != first.a || lane[l]->b != first.b || lane[l]->n != first.n)
            cuda_host_complain("lanes multiply different operands by wgmma");
    for (descriptor d : {a, b})
        if (d.swizzle() != SWIZZLE_128 || d.base_offset() || d.start() % ATOM >= 128)
            cuda_host_complain(
                "wgmma of an operand that does not lie in 128-byte swizzles of 1024-byte aligned memory");
    for (uint32_t k = 0; k < 16; k++) {
        for (uint32_t i = 0; i < 16; i++)
            A[i][k] = k < terms ? bf16_to_float(element(a, first.a_by_rows, 16 * (uint32_t)first.warp + i, k)) : 0;
        for (uint32_t i = 0; i < (uint32_t)first.n; i++) B[i][k] = bf16_to_float(element(b, first.b_by_rows, i, k));
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < first.n / 2; i++) {
            int row = l / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + l % 4 * 2 + i % 2;
            lane[l]->d[i] = cuda_host_tensor_sum(lane[l]->d[i], A[row], B[column]);
        }
}

void compute(cuda_host_wgmma operation) { cuda_host_together("wgmma", multiply, &operation, nullptr); }

}  // namespace

void cuda_host_wgmma_begin(const cuda_host_wgmma &operation) {
    if (!self()->fenced) cuda_host_complain("wgmma without wgmma_fence()");
    if (cuda_host_early()) self()->products.push_back({operation, self()->groups});
    else compute(operation);
}

void wgmma_fence(void) { self()->fenced = true; }

void wgmma_commit(void) {
    self()->groups++;
    self()->fenced = false;
}

void cuda_host_wgmma_wait(int pending) {
    thread *t = self();
    while (!t->products.empty() && t->products[0].group < t->groups - pending) {
        compute(t->products[0].operation);
        t->products.erase(t->products.begin());
    }
}

void cuda_host_copied(const void *chunk) {
    self()->copied.push_back((size_t)((const unsigned char *)chunk - cuda_host_shared()) / CHUNK);
    unseen[self()->copied.back()] = true;
}

void fence_shared_for_wgmma(void) {
    for (size_t chunk : self()->copied) unseen[chunk] = false;
    self()->copied.clear();
}

void cuda_host_wgmma_reset(void) {
    for (auto &t : threads) t = {};
    memset(unseen, 0, sizeof unseen);
}
