/* Runs CUDA kernels on a CPU, to find mistakes and not to be fast. A block's threads are fibers; blocks run one after
   the other. Stricter than a GPU where that finds mistakes:
   - Work is queued and runs when the host waits for it; device memory is out of reach of the host in between, and each
     allocation ends at a page that nobody may touch. A kernel's pointer arguments must be device memory.
   - A copy by cp.async lands only when it is waited for (GRPO_CUDA_HOST_COPY=early: at once; then wgmma waits instead).
   - While a stream is captured nothing may wait, allocate, free, touch the host's memory or go to another stream.
   - Lanes of a warp that do different things together, and threads at different barriers, are errors.
   - Shared memory begins as NaN in every block; the dynamic part ends at a page that nobody may touch.
   - Tensor cores truncate where numbers are aligned and when the sum is rounded, as those of GPUs do.
   GRPO_CUDA_HOST_ORDER: the order in which threads run up to a barrier, and blocks: forward, reverse, or random (a
   number: its seed). GRPO_CUDA_HOST_SM: 80 or 90, the compute capability. GRPO_CUDA_HOST_ERROR: a cudaError that the
   driver answers with. GRPO_CUDA_HOST_SHARED: bytes a block may have. */
#include "cuda/ptx90.cuh"
#include "races.h"

#include <dlfcn.h>
#include <link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

enum { LANES = 32, BLOCK_MAX = 1024, STACK = 256 << 10, SHARED_STATIC = 1 << 10 };
enum { SHARED_FREE = (48 << 10) - SHARED_STATIC, SHARED_ROOM = 256 << 10, SHARED_ALIGN = 1024 };
const size_t PAGE = 4096, DEVICE_MEMORY = (size_t)1 << 30;

std::recursive_mutex mutex;
typedef std::lock_guard<std::recursive_mutex> guard;
std::string message;                                   /* of the last cudaErrorLaunchFailure */

size_t number(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

size_t capability() { return number("GRPO_CUDA_HOST_SM", 80); }
size_t shared_max() { return number("GRPO_CUDA_HOST_SHARED", capability() == 90 ? 227 << 10 : 99 << 10); }

/* -- memory -------------------------------------------------------------------------------------------------------- */

struct region { char *map, *begin; size_t map_bytes, bytes; char *shadow; };
std::map<const char *, region> device, pinned;         /* by first byte */
bool reachable;

char *map_lazily(size_t bytes) {
    return (char *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* `bytes` that end (but for their alignment to 64) where an untouchable page begins */
char *map_before_guard(region *r, size_t bytes) {
    size_t room = (bytes + 63) / 64 * 64, whole = (room + PAGE - 1) / PAGE * PAGE;
    char *map = map_lazily(whole + PAGE);
    if (map == (char *)MAP_FAILED) return nullptr;
    mprotect(map + whole, PAGE, PROT_NONE);
    *r = {map, map + whole - room, whole, bytes, nullptr};
    return r->begin;
}

const region *find(const std::map<const char *, region> &all, const void *p, size_t bytes) {
    auto it = all.upper_bound((const char *)p);
    if (it == all.begin()) return nullptr;
    const region *r = &(--it)->second;
    return (const char *)p + bytes <= r->begin + r->bytes ? r : nullptr;
}

void reach(bool yes) {
    if (reachable == yes) return;
    reachable = yes;
    for (auto &entry : device)
        mprotect(entry.second.map, entry.second.map_bytes, yes ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/* -- fibers -------------------------------------------------------------------------------------------------------- */

enum state { READY, AT_WARP, AT_BARRIER, DONE };
struct pending_copy { void *to; const void *from; int group; };
struct fiber {
    state at;
    bool started;
    void *stack;
    ucontext_t context;
    jmp_buf env;
    uint3 index;
    const char *kind, *file;                           /* what it waits for */
    int line;
    cuda_host_work *work;
    const void *in;
    void *out;
    std::vector<pending_copy> copies;
    int groups;                                        /* committed */
};
std::vector<std::unique_ptr<fiber>> fibers;
fiber *current;
jmp_buf scheduler;
std::function<void()> *body;
char *shared_room, *shared_begin;
size_t shared_bytes;
uint64_t random_state;
bool reverse, shuffled, early;

uint32_t next_random(uint32_t below) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

void yield() {
    if (!_setjmp(current->env)) _longjmp(scheduler, 1);
}

void fiber_main() {
    for (;;) {
        (*body)();
        current->at = DONE;
        yield();
    }
}

void resume(fiber *f) {
    current = f;
    threadIdx = f->index;
    if (_setjmp(scheduler)) return;
    if (f->started) _longjmp(f->env, 1);
    f->started = true;
    setcontext(&f->context);
}

void begin(fiber *f) {
    f->started = false;
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK;
    makecontext(&f->context, fiber_main, 0);
}

fiber *fiber_of(unsigned i) {
    while (fibers.size() <= i) {
        fibers.emplace_back(new fiber());
        fibers.back()->stack = map_lazily(STACK);
        begin(fibers.back().get());
    }
    return fibers[i].get();
}

std::string place(const fiber *f) {
    char text[200];
    snprintf(text, sizeof text, "thread %u %s%s", f->index.x,
             f->at == DONE ? "has ended" : f->at == AT_WARP ? "does " : "is at barrier ",
             f->at == AT_WARP ? f->kind : "");
    std::string s = text;
    if (f->at == AT_BARRIER) s += std::string(f->file) + ":" + std::to_string(f->line);
    return s;
}

/* The kernel is given up; fibers, whose stacks hold half of it, begin anew. */
bool complain(const std::string &what) {
    char text[120];
    snprintf(text, sizeof text, " in block (%u, %u, %u) of (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x,
             gridDim.y, gridDim.z);
    message = what + text;
    for (auto &f : fibers) begin(f.get());
    return false;
}

/* Runs a warp until all its lanes wait at a barrier or have ended, or, shuffled, for a few steps. */
bool run_warp(unsigned first) {
    for (unsigned steps = shuffled ? 1 + next_random(4) : ~0u; steps; steps--) {
        unsigned turn = shuffled ? next_random(LANES) : 0;
        for (unsigned i = 0; i < LANES; i++) {
            fiber *f = fiber_of(first + (reverse ? LANES - 1 - i : (i + turn) % LANES));
            if (f->at == READY) resume(f);
        }
        const fiber *head = nullptr;
        for (unsigned i = 0; i < LANES && !head; i++)
            head = fiber_of(first + i)->at == AT_WARP ? fiber_of(first + i) : nullptr;
        if (!head) return true;
        const void *in[LANES];
        void *out[LANES];
        for (unsigned i = 0; i < LANES; i++) {
            fiber *f = fiber_of(first + i);
            if (f->at != AT_WARP || strcmp(f->kind, head->kind))
                return complain("a warp diverged: " + place(head) + ", " + place(f));
            in[i] = f->in;
            out[i] = f->out;
        }
        if (head->work) head->work(in, out);
        else cuda_host_races_warp(first);
        if (!message.empty()) return complain(message);
        for (unsigned i = 0; i < LANES; i++) fiber_of(first + i)->at = READY;
    }
    return true;
}

bool run_block(unsigned threads) {
    cuda_host_wgmma_reset();
    cuda_host_races_block();
    for (unsigned i = 0; i < threads; i++) {
        fiber *f = fiber_of(i);
        f->at = READY;
        f->index = {i, 0, 0};
        f->copies.clear();
        f->groups = 0;
    }
    for (;;) {
        unsigned ready = 0, warps = threads / LANES, turn = shuffled ? next_random(warps) : 0;
        for (unsigned i = 0; i < warps; i++)
            if (!run_warp(LANES * (reverse ? warps - 1 - i : (i + turn) % warps))) return false;
        for (unsigned i = 0; i < threads; i++) ready += fiber_of(i)->at == READY;
        if (!message.empty()) return complain(message);
        if (ready) continue;
        const fiber *waits = nullptr;
        for (unsigned i = 0; i < threads; i++) {
            const fiber *f = fiber_of(i);
            if (f->at != AT_BARRIER) continue;
            if (!waits) waits = f;
            if (f->line != waits->line || strcmp(f->file, waits->file))
                return complain("threads are at different barriers: " + place(waits) + ", " + place(f));
        }
        if (!waits) return true;
        cuda_host_races_barrier();
        for (unsigned i = 0; i < threads; i++)
            if (fiber_of(i)->at == AT_BARRIER) fiber_of(i)->at = READY;
    }
}

/* Static shared memory is this library's thread-local memory. */
struct { char *begin; size_t bytes; } statics;
thread_local char in_statics;

int find_statics(dl_phdr_info *info, size_t, void *inside) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
        char *begin = (char *)info->dlpi_tls_data;
        size_t bytes = info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type != PT_TLS || !begin || (size_t)((char *)inside - begin) >= bytes) continue;
        statics = {begin, bytes};
        return 1;
    }
    return 0;
}

struct launch { dim3 grid, block; size_t shared; std::function<void()> run; const void *kernel; };

/* the name of a kernel, if the library has debugging information and addr2line is there */
std::string name_of(const void *kernel) {
    std::string place = cuda_host_place(kernel);
    return place.substr(0, place.rfind(' '));
}

/* a number without a divisor in common with n, so that its multiples modulo n are all numbers below n */
size_t stride_through(size_t n) {
    size_t stride = n > 1 ? 1 + next_random((uint32_t)std::min(n - 1, (size_t)1 << 30)) : 1;
    while (std::gcd(stride, n) > 1) stride = stride % n + 1;
    return stride;
}

bool run_kernel(launch *l) {
    if (!shared_room) {
        shared_room =
            (char *)mmap(nullptr, SHARED_ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(shared_room + SHARED_ROOM, PAGE, PROT_NONE);
    }
    size_t room = (l->shared + SHARED_ALIGN - 1) / SHARED_ALIGN * SHARED_ALIGN;
    shared_begin = shared_room + SHARED_ROOM - room;
    shared_bytes = l->shared;
    const char *order = getenv("GRPO_CUDA_HOST_ORDER"), *copy = getenv("GRPO_CUDA_HOST_COPY");
    reverse = order && !strcmp(order, "reverse");
    shuffled = order && *order >= '0' && *order <= '9';
    if (shuffled) random_state = strtoull(order, nullptr, 10);
    early = copy && !strcmp(copy, "early");
    body = &l->run;
    gridDim = l->grid;
    blockDim = l->block;
    dl_iterate_phdr(find_statics, &in_statics);
    cuda_host_races_kernel(true);
    size_t blocks = (size_t)l->grid.x * l->grid.y * l->grid.z;
    size_t stride = shuffled ? stride_through(blocks) : reverse ? blocks - 1 : 1;
    for (size_t i = 0, b = stride - 1; i < blocks; i++, b = (b + stride) % blocks) {
        blockIdx = {(unsigned)(b % l->grid.x), (unsigned)(b / l->grid.x % l->grid.y),
                    (unsigned)(b / l->grid.x / l->grid.y)};
        memset(shared_begin, 0xff, room);
        memset(statics.begin, 0xff, statics.bytes);
        if (run_block(l->block.x)) continue;
        message += ", kernel " + name_of(l->kernel);
        cuda_host_races_kernel(false);
        return false;
    }
    cuda_host_races_kernel(false);
    return message.empty();
}

/* -- the queue ----------------------------------------------------------------------------------------------------- */

typedef std::vector<std::function<bool()>> work_list;
work_list queue;
std::map<const void *, size_t> allowed;                /* shared memory of kernels, where it is more than SHARED_FREE */
struct { int waits, graphs; } counted;                 /* of the host for the queue; graphs that it launched */

struct { bool on, spoiled; cudaStream_t stream; work_list work; } capture;

/* A GPU refuses some of this and does the rest once, now, instead of with each launch of the graph. */
bool spoils_capture(const char *what) {
    if (!capture.on) return false;
    capture.spoiled = true;
    message = std::string(what) + " while a stream is captured";
    return true;
}

cudaError_t put(cudaStream_t stream, std::function<bool()> work) {
    if (capture.on && stream == capture.stream) return capture.work.push_back(work), cudaSuccess;
    if (spoils_capture("work on another stream")) return cudaErrorStreamCaptureUnsupported;
    return queue.push_back(work), cudaSuccess;
}

cudaError_t flush() {
    counted.waits++;
    if (queue.empty()) return cudaSuccess;
    message.clear();
    reach(true);
    bool good = true;
    for (size_t i = 0; i < queue.size() && good; i++) good = queue[i]();
    queue.clear();
    reach(false);
    return good ? cudaSuccess : cudaErrorLaunchFailure;
}

cudaError_t driver() { return (cudaError_t)number("GRPO_CUDA_HOST_ERROR", cudaSuccess); }

}  // namespace

/* -- what kernels call --------------------------------------------------------------------------------------------- */

void cuda_host_barrier(const char *file, int line) {
    current->file = file;
    current->line = line;
    current->at = AT_BARRIER;
    yield();
}

void cuda_host_together(const char *kind, cuda_host_work *work, const void *in, void *out) {
    current->kind = kind;
    current->work = work;
    current->in = in;
    current->out = out;
    current->at = AT_WARP;
    yield();
}

void cuda_host_warp_barrier() { cuda_host_together("syncwarp", nullptr, nullptr, nullptr); }

unsigned char *cuda_host_shared() { return (unsigned char *)shared_begin; }
size_t cuda_host_shared_bytes() { return shared_bytes; }
bool cuda_host_early() { return early; }
void cuda_host_complain(const char *what) { message = message.empty() ? what : message; }

bool cuda_host_find(cuda_host_memory *where, const void *p) {
    static char *shadow_of_shared = map_lazily(cuda_host_shadow_bytes(SHARED_ROOM)),
                *shadow_of_statics = map_lazily(cuda_host_shadow_bytes(statics.bytes));
    auto within = [&](const void *begin, size_t bytes) {
        return (size_t)((const char *)p - (const char *)begin) < bytes;
    };
    auto in = [&](const char *name, const char *begin, bool shared, char *shadow) {
        *where = {name, (size_t)((const char *)p - begin), shared,
                  shadow + cuda_host_shadow_bytes((size_t)((const char *)p - begin))};
        return true;
    };
    if (within(current->stack, STACK)) return false;
    if (within(shared_begin, shared_bytes)) return in("dynamic shared memory", shared_begin, true, shadow_of_shared);
    if (within(statics.begin, statics.bytes)) return in("static shared memory", statics.begin, true, shadow_of_statics);
    region *r = (region *)find(device, p, 1);
    if (!r) return false;
    if (!r->shadow) r->shadow = map_lazily(cuda_host_shadow_bytes(r->bytes));
    return in("device memory", r->begin, false, r->shadow);
}

std::string cuda_host_place(const void *code) {
    Dl_info info;
    char command[4400], function[400] = "?", file[400] = "?";
    if (!dladdr((const void *)cuda_host_place, &info)) return "? ?";
    snprintf(command, sizeof command, "addr2line -Cfse '%s' 0x%zx 2>/dev/null", info.dli_fname,
             (size_t)((const char *)code - (const char *)info.dli_fbase));
    FILE *f = popen(command, "r");
    for (char *line : {function, file})
        if (f && fgets(line, sizeof function, f)) line[strcspn(line, "\n")] = 0;
    if (f) pclose(f);
    return std::string(function) + " " + file;
}

void cuda_host_shuffle(const void *const in[LANES], void *const out[LANES]) {
    uint64_t got[LANES];
    for (int i = 0; i < LANES; i++) got[i] = ((const cuda_host_lane *)in[((const cuda_host_lane *)in[i])->from])->value;
    for (int i = 0; i < LANES; i++) *(uint64_t *)out[i] = got[i];
}

void cuda_host_ballot(const void *const in[LANES], void *const out[LANES]) {
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++) bits |= (uint32_t)*(const bool *)in[i] << i;
    for (int i = 0; i < LANES; i++) *(uint32_t *)out[i] = bits;
}

static float half_of(uint32_t pair, int i) { return bf16_to_float((bf16)(pair >> 16 * i)); }

float cuda_host_tensor_sum(float c, const float a[16], const float b[16]) {
    double terms[17], largest = 0, plain = 0;
    for (int i = 0; i < 17; i++) {
        terms[i] = i < 16 ? (double)a[i] * b[i] : c;
        plain += terms[i];
        largest = fmax(largest, fabs(terms[i]));
    }
    if (largest == 0 || !isfinite(plain)) return (float)plain;
    int32_t sum = 0;
    double unit = ldexp(1, ilogb(largest) - 25);        /* the 24 bits of the largest and two more */
    for (double term : terms) sum += (int32_t)(term / unit);
    double kept = cuda_host_bits<double>(cuda_host_bits<uint64_t>(sum * unit) & ~(((uint64_t)1 << 29) - 1));
    return (float)kept;
}

void cuda_host_mma_work(const void *const in[LANES], void *const[]) {
    const cuda_host_mma *lane[LANES];
    float A[16][16], B[8][16];
    for (int l = 0; l < LANES; l++) {
        lane[l] = (const cuda_host_mma *)in[l];
        int g = l / 4, t = l % 4;
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < 2; i++) A[g + r % 2 * 8][2 * t + i + r / 2 * 8] = half_of(lane[l]->a[r], i);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < 2; i++) B[g][2 * t + i + 8 * r] = half_of(lane[l]->b[r], i);
    }
    for (int l = 0; l < LANES; l++)
        for (int r = 0; r < 4; r++)
            lane[l]->c[r] = cuda_host_tensor_sum(lane[l]->c[r], A[l / 4 + r / 2 * 8], B[2 * (l % 4) + r % 2]);
}

static void ldmatrix(const void *const in[LANES], void *const out[LANES], int matrices, bool trans) {
    for (int i = 0; i < 8 * matrices; i++)
        if ((uintptr_t)in[i] % 16) {
            message = "ldmatrix of a row that is not 16-byte aligned";
            return;
        }
    for (int i = 0; i < 8 * matrices; i++) cuda_host_races_read(in[i], 16);
    for (int l = 0; l < LANES; l++)
        for (int m = 0; m < matrices; m++) {
            bf16 pair[2];
            for (int i = 0; i < 2; i++)
                pair[i] = trans ? ((const bf16 *)in[8 * m + 2 * (l % 4) + i])[l / 4]
                                : ((const bf16 *)in[8 * m + l / 4])[2 * (l % 4) + i];
            ((uint32_t *)out[l])[m] = pair[0] | (uint32_t)pair[1] << 16;
        }
}
void cuda_host_ldmatrix_x4(const void *const in[LANES], void *const out[LANES]) { ldmatrix(in, out, 4, false); }
void cuda_host_ldmatrix_x4_trans(const void *const in[LANES], void *const out[LANES]) { ldmatrix(in, out, 4, true); }
void cuda_host_ldmatrix_x2(const void *const in[LANES], void *const out[LANES]) { ldmatrix(in, out, 2, false); }
void cuda_host_ldmatrix_x2_trans(const void *const in[LANES], void *const out[LANES]) { ldmatrix(in, out, 2, true); }

static void copy16(void *to, const void *from) {
    if (from) memcpy(to, from, 16);
    else memset(to, 0, 16);
}

void cp_async16(void *shared, const void *global, bool valid) {
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16)
        message = "cp_async16 of an address that is not 16-byte aligned";
    else if (!cuda_host_is_device(global)) message = "cp_async16 from an address that is not device memory";
    if (!message.empty()) return;
    cuda_host_races_copy(shared, valid ? global : nullptr, false);
    if (early) copy16(shared, valid ? global : nullptr);
    current->copies.push_back({shared, valid ? global : nullptr, current->groups});
}

void cp_async_commit(void) { current->groups++; }

void cuda_host_wait(int pending) {
    auto &copies = current->copies;
    size_t n = 0;
    for (; n < copies.size() && copies[n].group < current->groups - pending; n++) {
        if (!early) copy16(copies[n].to, copies[n].from);
        cuda_host_races_copy(copies[n].to, copies[n].from, true);
        cuda_host_copied(copies[n].to);
    }
    copies.erase(copies.begin(), copies.begin() + (ptrdiff_t)n);
}

/* -- what the host calls ------------------------------------------------------------------------------------------- */

bool cuda_host_is_device(const void *p) { return find(device, p, 0) != nullptr; }

cudaError_t cuda_host_launch(const cudaLaunchConfig_t *config, const void *kernel, std::function<void()> run) {
    guard g(mutex);
    const dim3 &grid = config->gridDim, &block = config->blockDim;
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    if (!block.x || block.x > BLOCK_MAX || block.x % LANES || block.y != 1 || block.z != 1)
        return cudaErrorInvalidConfiguration;
    if (config->dynamicSmemBytes > SHARED_FREE && config->dynamicSmemBytes > allowed[kernel])
        return cudaErrorInvalidValue;
    return put(config->stream,
               [l = launch{grid, block, config->dynamicSmemBytes, run, kernel}]() mutable { return run_kernel(&l); });
}

/* As if every kernel had SHARED_STATIC bytes of static shared memory, since its size cannot be seen here. */
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *kernel) {
    guard g(mutex);
    *attributes = {SHARED_STATIC, allowed.count(kernel) ? (int)allowed[kernel] : SHARED_FREE};
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute, int value) {
    guard g(mutex);
    if ((size_t)value + SHARED_STATIC > shared_max()) return cudaErrorInvalidValue;
    allowed[kernel] = (size_t)value;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    guard g(mutex);
    if (spoils_capture("cudaMalloc")) return cudaErrorStreamCaptureUnsupported;
    region r;
    size_t taken = 0;
    for (auto &entry : device) taken += entry.second.bytes;
    if (bytes > DEVICE_MEMORY - taken || !map_before_guard(&r, bytes)) return cudaErrorMemoryAllocation;
    memset(r.begin, 0xff, (bytes + 63) / 64 * 64);
    if (!reachable) mprotect(r.map, r.map_bytes, PROT_NONE);
    device[r.begin] = r;
    *p = r.begin;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
    guard g(mutex);
    if (spoils_capture("cudaFree")) return cudaErrorStreamCaptureUnsupported;
    cudaError_t error = flush();
    auto it = device.find((const char *)p);
    if (!p || it == device.end()) return p ? cudaErrorInvalidValue : error;
    const region r = it->second;
    device.erase(it);
    mprotect(r.map, r.map_bytes, PROT_READ);
    for (const char *tail = r.begin + r.bytes; tail < r.map + r.map_bytes && !error; tail++)
        if (*tail != (char)0xff) {
            message = "something was written beyond the end of " + std::to_string(r.bytes) + " bytes";
            error = cudaErrorLaunchFailure;
        }
    munmap(r.map, r.map_bytes + PAGE);
    if (r.shadow) munmap(r.shadow, cuda_host_shadow_bytes(r.bytes));
    return error;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) {
    guard g(mutex);
    region r;
    if (!map_before_guard(&r, bytes)) return cudaErrorMemoryAllocation;
    pinned[r.begin] = r;
    *p = r.begin;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p) {
    guard g(mutex);
    cudaError_t error = flush();
    auto it = pinned.find((const char *)p);
    if (it == pinned.end()) return p ? cudaErrorInvalidValue : error;
    munmap(it->second.map, it->second.map_bytes + PAGE);
    pinned.erase(it);
    return error;
}

/* Page-locked memory of the host is read and written when the queue gets there, other memory of the host at once. */
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    guard g(mutex);
    if (kind != cudaMemcpyDeviceToDevice && spoils_capture("a copy from or to the host"))
        return cudaErrorStreamCaptureUnsupported;
    if (kind != cudaMemcpyDeviceToHost && !find(device, dst, bytes)) return cudaErrorInvalidValue;
    if (kind != cudaMemcpyHostToDevice && !find(device, src, bytes)) return cudaErrorInvalidValue;
    if (kind == cudaMemcpyHostToDevice && !find(pinned, src, bytes)) {
        std::string copy((const char *)src, bytes);
        return put(stream, [=] { return memcpy(dst, copy.data(), bytes) != nullptr; });
    }
    cudaError_t error = put(stream, [=] { return memmove(dst, src, bytes) != nullptr; });
    return kind == cudaMemcpyDeviceToHost && !find(pinned, dst, bytes) ? flush() : error;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream) {
    guard g(mutex);
    if (!find(device, dst, bytes)) return cudaErrorInvalidValue;
    return put(stream, [=] { return memset(dst, value, bytes) != nullptr; });
}

static cudaError_t synchronize() {
    guard g(mutex);
    return spoils_capture("waiting") ? cudaErrorStreamCaptureUnsupported : flush();
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return synchronize(); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return synchronize(); }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
static void enqueue(cudaStream_t stream, std::function<void()> work) {
    guard g(mutex);
    put(stream, [=] { return work(), true; });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
    return *stream = new cuda_host_stream{enqueue}, cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) { return *event = (cudaEvent_t)1, cudaSuccess; }

/* All streams are one queue: work runs in the order in which the host put it there. */
struct cuda_host_graph { work_list work; };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    guard g(mutex);
    if (spoils_capture("cudaStreamBeginCapture")) return cudaErrorStreamCaptureUnsupported;
    capture = {true, false, stream, {}};
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    guard g(mutex);
    *graph = nullptr;
    if (!capture.on || stream != capture.stream) return cudaErrorInvalidValue;
    capture.on = false;
    if (capture.spoiled) return cudaErrorStreamCaptureInvalidated;
    return *graph = new cuda_host_graph{capture.work}, cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    return *exec = new cuda_host_graph(*graph), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    guard g(mutex);
    counted.graphs++;
    for (auto &work : exec->work) put(stream, work);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }

/* How often the host has waited, and launched a graph, since the last call. */
extern "C" __attribute__((visibility("default"))) void cuda_host_counts(int *waits, int *graphs) {
    guard g(mutex);
    *waits = counted.waits, *graphs = counted.graphs;
    counted = {};
}

cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, driver(); }
cudaError_t cudaGetDevice(int *index) { return *index = 0, driver(); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated");
    p->major = (int)capability() / 10;
    p->minor = (int)capability() % 10;
    p->totalGlobalMem = DEVICE_MEMORY;
    return driver();
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = (int)capability() / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = (int)capability() % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)shared_max(); break;
    }
    return driver();
}

cudaError_t cudaGetLastError() { return cudaSuccess; }
const char *cudaGetErrorName(cudaError_t) { return "cudaError"; }
const char *cudaGetErrorString(cudaError_t error) {
    static std::string text;
    text = error >= cudaErrorLaunchFailure && !message.empty() ? message : "error " + std::to_string((int)error);
    return text.c_str();
}
