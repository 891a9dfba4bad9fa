/* The one thread pool. Which thread computes what never changes a result's value: each output element is computed by
   one thread, whole. No OpenMP: libgomp hangs forked children. */
#ifndef GRPO_THREADS_H
#define GRPO_THREADS_H

enum { THREADS_MAX = 256 };

/* work(arg, begin, end, thread) over [0, n) in T contiguous shares for T threads; thread < T is the one that runs
   it. Returns when all are done. _chunks: each share in pieces of at least `chunk`, so that a faster thread takes
   over from a slower one. */
void parallel_for(int n, void (*work)(void *arg, int begin, int end, int thread), void *arg);
void parallel_chunks(int n, int chunk, void (*work)(void *arg, int begin, int end, int thread), void *arg);

int threads_check(void);        /* E_CONFIG where GRPO_NUM_THREADS is set, but to no number of 1..THREADS_MAX */
int threads_count(void);        /* GRPO_NUM_THREADS, else affinity and cgroup quota */
int threads_set(int count);     /* 1..THREADS_MAX; E_CONFIG otherwise */

#endif
