/* The one thread pool. Static contiguous partition, so that which thread computes what never changes a result's
   value (each output element is computed by one thread, whole). No OpenMP: libgomp hangs forked children. */
#ifndef GRPO_THREADS_H
#define GRPO_THREADS_H

enum { THREADS_MAX = 256 };

/* Thread t of T gets [n*t/T, n*(t+1)/T) and calls work(arg, begin, end, t) if that is not empty. Returns when all are done. */
void parallel_for(int n, void (*work)(void *arg, int begin, int end, int thread), void *arg);

int threads_count(void);        /* GRPO_NUM_THREADS, else affinity and cgroup quota */
int threads_set(int count);     /* 1..THREADS_MAX; E_CONFIG otherwise */

#endif
