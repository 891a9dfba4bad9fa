#define _GNU_SOURCE
#include "base/threads.h"
#include "base/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A job is published by raising `generation`; workers spin on it for a while (a launch then costs about a
   microsecond, and there are ~10 a layer), then sleep on a condition. One job runs at a time: callers queue on
   `entry`. Share s of a job is meant for thread s, which takes it in chunks, half of what is left at a time; whoever
   has finished his own goes on with the others'. A thread that the system slows down or keeps from running (a busy
   machine, more threads than cores) then delays nobody for long. */
enum { SPIN = 20000 };

static struct {
    pthread_mutex_t entry, lock;
    pthread_cond_t wake;
    int count, started;                      /* threads including the caller; workers alive */
    pthread_t workers[THREADS_MAX];
    _Atomic unsigned generation;             /* of the newest job */
    _Atomic int unfinished, sleeping;        /* units of that job; workers */
    _Atomic int n, chunk, shares;
    void (*work)(void *, int, int, int);
    void *arg;
} pool = {.entry = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* Generation (upper 32 bits) and next unit (lower) of each share. A job's end leaves NOTHING, before the next job's
   fields are written: a worker that is late by a job may read those, but what it claims with them was changed
   meanwhile. */
static struct {
    _Alignas(64) _Atomic uint64_t state;
} claims[THREADS_MAX];
#define NOTHING ((uint64_t)INT32_MAX)

static _Thread_local int inside;             /* a nested call runs serially */

static void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Units [*begin, *end) of a share, if it has any left. */
static int claim(int *begin, int *end, int share, unsigned generation) {
    uint64_t state = atomic_load(&claims[share].state);
    for (;;) {
        int n = atomic_load(&pool.n), shares = atomic_load(&pool.shares), chunk = atomic_load(&pool.chunk);
        int next = (int)(uint32_t)state, left = (int)((int64_t)n * (share + 1) / shares) - next;
        if (state >> 32 != generation || left <= 0) return 0;
        int taken = left / 2 < chunk ? left : left / 2;
        if (!atomic_compare_exchange_weak(&claims[share].state, &state, state + (uint64_t)taken)) continue;
        *begin = next;
        *end = next + taken;
        return 1;
    }
}

/* Runs what nobody else has claimed, this thread's own share first. */
static void run_shares(int thread, unsigned generation) {
    int shares = atomic_load(&pool.shares);
    for (int i = 0, begin, end; i < shares; i++)
        while (claim(&begin, &end, (thread + i) % shares, generation)) {
            pool.work(pool.arg, begin, end, thread);
            atomic_fetch_sub_explicit(&pool.unfinished, end - begin, memory_order_release);
        }
}

static void *worker(void *arg) {
    int thread = (int)(intptr_t)arg;
    unsigned seen = (unsigned)((intptr_t)arg >> 32);
    inside = 1;
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&pool.generation, memory_order_acquire) == seen) {
            if (++spins < SPIN) {
                pause_cpu();
                if (spins % 256 == 0 && spins > SPIN / 4) sched_yield();
                continue;
            }
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.sleeping, 1);
            while (atomic_load(&pool.generation) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.sleeping, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        seen = atomic_load_explicit(&pool.generation, memory_order_acquire);
        run_shares(thread, seen);
    }
    return NULL;
}

static int quota_threads(int affinity) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return affinity;
    double quota, period;
    int got = fscanf(f, "%lf %lf", &quota, &period);
    fclose(f);
    if (got != 2 || period <= 0) return affinity;
    int limit = (int)(quota / period + 0.5);
    return max_int(1, min_int(affinity, limit));
}

/* GRPO_NUM_THREADS; 0 where it is not set, below 0 where it is no number of threads */
static int asked_count(void) {
    const char *env = getenv("GRPO_NUM_THREADS");
    if (!env || !*env) return 0;
    char *end;
    long count = strtol(env, &end, 10);
    return *end || count < 1 || count > THREADS_MAX ? -1 : (int)count;
}

int threads_check(void) {
    if (asked_count() >= 0) return OK;
    return fail(E_CONFIG, "GRPO_NUM_THREADS is '%s', must be a number of threads, 1..%d", getenv("GRPO_NUM_THREADS"),
                THREADS_MAX);
}

static int default_count(void) {
    if (asked_count() > 0) return asked_count();
    cpu_set_t set;
    int affinity = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
    return min_int(THREADS_MAX, quota_threads(max_int(1, affinity)));
}

/* After fork only the calling thread exists: forget the workers, they are started again on the next job. */
static void after_fork(void) {
    pthread_mutex_init(&pool.entry, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pool.started = 0;
    atomic_store(&pool.unfinished, 0);
    atomic_store(&pool.sleeping, 0);
}

static void setup(void) {
    if (!pool.count) pool.count = default_count();
    pthread_atfork(NULL, NULL, after_fork);
}

static void ensure_setup(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, setup);
}

int threads_count(void) {
    ensure_setup();
    return pool.count;
}

int threads_set(int count) {
    ensure_setup();
    if (count < 1 || count > THREADS_MAX)
        return fail(E_CONFIG, "number of threads is %d, must be 1..%d", count, THREADS_MAX);
    pthread_mutex_lock(&pool.entry);
    pool.count = count;
    pthread_mutex_unlock(&pool.entry);
    return OK;
}

/* Starts what is missing; if the system refuses a thread, fewer do the work (the same results). */
static int ready_threads(void) {
    while (pool.started < pool.count - 1) {
        pthread_t id;
        intptr_t arg = (intptr_t)(pool.started + 1) | (intptr_t)atomic_load(&pool.generation) << 32;
        if (pthread_create(&id, NULL, worker, (void *)arg)) break;
        pthread_detach(id);
        pool.workers[pool.started++] = id;
    }
    return min_int(pool.count, pool.started + 1);
}

/* A worker that wakes is often put on the CPU of the caller that woke it, which is busy, and stays there for
   milliseconds while the caller runs every share alone (measured: 228 GFLOP/s instead of 455 for the first 5 ms
   after a pause). So each worker is first sent to a CPU of its own, away from the caller's; with fewer CPUs than
   threads the system decides. */
static void spread_workers(void) {
    cpu_set_t allowed;
    int mine = sched_getcpu(), worker = 0;
    if (mine < 0 || sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) <= pool.started) return;
    for (int cpu = 0; cpu < CPU_SETSIZE && worker < pool.started; cpu++) {
        if (cpu == mine || !CPU_ISSET(cpu, &allowed)) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(pool.workers[worker++], sizeof one, &one);
    }
}

void parallel_for(int n, void (*work)(void *arg, int begin, int end, int thread), void *arg) {
    parallel_chunks(n, n, work, arg);
}

void parallel_chunks(int n, int chunk, void (*work)(void *arg, int begin, int end, int thread), void *arg) {
    if (n <= 0) return;
    ensure_setup();
    if (n == 1 || inside || pool.count == 1) {
        work(arg, 0, n, 0);
        return;
    }
    pthread_mutex_lock(&pool.entry);
    int shares = ready_threads();
    unsigned generation = atomic_load_explicit(&pool.generation, memory_order_relaxed) + 1;
    pool.work = work;
    pool.arg = arg;
    atomic_store(&pool.n, n);
    atomic_store(&pool.chunk, chunk);
    atomic_store(&pool.shares, shares);
    atomic_store(&pool.unfinished, n);
    for (int i = 0; i < shares; i++)
        atomic_store(&claims[i].state, (uint64_t)generation << 32 | (uint64_t)((int64_t)n * i / shares));
    atomic_store(&pool.generation, generation);
    if (atomic_load(&pool.sleeping)) {
        spread_workers();
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    inside = 1;
    run_shares(0, generation);
    inside = 0;
    int spins = 0;
    while (atomic_load_explicit(&pool.unfinished, memory_order_acquire)) {
        pause_cpu();
        if (++spins % 1024 == 0) sched_yield();
    }
    for (int i = 0; i < shares; i++) atomic_store(&claims[i].state, (uint64_t)generation << 32 | NOTHING);
    pthread_mutex_unlock(&pool.entry);
}
