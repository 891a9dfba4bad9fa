/* Sampling. One product over W makes the logits of up to SAMPLE_ROWS slots, and with them what head() says of a row;
   a block then draws each row's token. A row whose distribution is the whole softmax needs nothing but the masses of
   chunks that the product left, and the logits of the chunk that is drawn from. Filters come in transformers' order
   and keep ids by a threshold on their logit, found by bisection over the floats: no row is ever sorted. The maxima
   and masses of chunks bound the threshold first, so that only chunks which may hold a kept id are looked at. */
#include "base/rng.h"
#include "cuda/head.cuh"

/* logits: 4 bytes a row and id: 311 MB for 512 rows and V = 151936 */
enum { SAMPLE_ROWS = 512, DRAW_THREADS = 256, QUADS = DRAW_THREADS / 4, GROUPS = 16, CACHED_CHUNKS = 128 };

struct draw_args {
    struct sampled *out;
    int32_t *next;
    uint8_t *seen;                   /* (rows, V) or NULL */
    float *z;                        /* (rows, pitch) logits over the temperature, -Inf beyond V */
    size_t pitch;
    struct row_stats stats;
    float *chunks;                   /* (rows, 3, n_chunks): max, sum, and ids of chunks */
    struct sampler sampler;
    const struct sample_key *keys;
    int V, n_chunks;
};

/* One row, as its block sees it. */
struct row {
    float *z;                        /* (V) */
    const uint8_t *seen, *forbidden; /* (V) or NULL */
    float penalty;
    float *max, *sum;                /* (n): of what may be drawn, chunk by chunk */
    int *active;                     /* (n): chunks that may hold an id of the support */
    int n, n_active;
    float *shared;                   /* scratch of sums over the block */
};

/* Ids v with logit z stay when z > threshold, or when it is equal and v <= last. */
struct support {
    float threshold;
    int last;
};
#define EVERY_ID ((struct support){-INFINITY, INT32_MAX})

static __device__ __forceinline__ float logit(const struct row *r, int v) {
    float z = r->z[v];
    if (z == -INFINITY) return z;
    if (r->seen && r->seen[v]) z = z > 0 ? z / r->penalty : z * r->penalty;
    return r->forbidden && r->forbidden[v] ? -INFINITY : z;
}

static __device__ __forceinline__ float kept_logit(const struct row *r, struct support s, int v) {
    float z = logit(r, v);
    return z > s.threshold || (z == s.threshold && v <= s.last) ? z : -INFINITY;
}

/* max, sum = of the kept ids of `n` chunks: all, or those of a list */
static __device__ void measure_chunks(const struct row *r, const int *list, int n, struct support s) {
    for (int first = 0; first < n; first += QUADS) {
        int i = first + (int)threadIdx.x / 4, chunk = i >= n ? -1 : list ? list[i] : i;
        float z[QUAD_IDS];
#pragma unroll
        for (int k = 0; k < QUAD_IDS; k++) z[k] = chunk < 0 ? -INFINITY : kept_logit(r, s, chunk * CHUNK + quad_id(k));
        struct mass m = chunk_mass(z);
        if (chunk < 0 || lane_id() % 4) continue;
        r->max[chunk] = m.max;
        r->sum[chunk] = m.sum;
    }
    __syncthreads();
}

static __device__ void remove_ids(const struct row *r, const int32_t *ids, int n) {
    for (int i = (int)threadIdx.x; i < n; i += DRAW_THREADS) r->z[ids[i]] = -INFINITY;
    __syncthreads();
    for (int first = 0; first < n; first += r->n) {    /* as many as the list holds */
        int count = min_int(r->n, n - first);
        for (int i = (int)threadIdx.x; i < count; i += DRAW_THREADS) r->active[i] = ids[first + i] / CHUNK;
        __syncthreads();
        measure_chunks(r, r->active, count, EVERY_ID);
    }
}

/* -- thresholds -------------------------------------------------------------------------------------------------- */

/* Floats in ascending order as unsigned integers, and back. */
static __device__ __forceinline__ uint32_t order_of(float x) {
    uint32_t bits = __float_as_uint(x + 0.0f);         /* -0 and 0 are equal and must be one number here */
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
static __device__ __forceinline__ float float_at(uint32_t order) {
    return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

/* The largest t in [low, high] with mass(t) >= goal, which low is taken to have; mass must not grow with t. */
template <typename Mass> static __device__ float largest_with(Mass mass, float goal, float low, float high) {
    uint32_t keep = order_of(low), drop = order_of(high) + 1;
    while (drop - keep > 1) {
        uint32_t middle = keep + (drop - keep) / 2;
        if (mass(float_at(middle)) >= goal) keep = middle;
        else drop = middle;
    }
    return float_at(keep);
}

/* A number that the k-th largest logit reaches: the k-th largest of the chunks' maxima. */
static __device__ float top_k_floor(const struct row *r, int k, float top) {
    if (k > r->n) return -INFINITY;
    auto count = [&](float t) {
        int found = 0;
        for (int i = (int)threadIdx.x; i < r->n; i += DRAW_THREADS) found += r->max[i] >= t;
        return block_sum((float)found, r->shared);
    };
    return largest_with(count, (float)k, -INFINITY, top);
}

/* A number that the threshold of top-p reaches: of a chunk with its maximum at t or above, at least that id counts,
   and at least all but what CHUNK - 1 ids below t can weigh. goal and masses are in units of e^top; the bound is a
   sum of other roundings than the masses that follow, hence the margin. */
static __device__ float top_p_floor(const struct row *r, float goal, float top) {
    auto bound = [&](float t) {
        float sure = 0, rest = (CHUNK - 1) * expf(below(t, top));
        for (int i = (int)threadIdx.x; i < r->n; i += DRAW_THREADS) {
            float largest = expf(below(r->max[i], top));
            if (r->max[i] >= t) sure += fmaxf(largest, largest * r->sum[i] - rest);
        }
        return block_sum(sure, r->shared);
    };
    return largest_with(bound, goal * 1.00001f, -INFINITY, top);
}

/* active = the chunks with a logit of at least `floor`, in order; the others weigh nothing from now on */
static __device__ void activate_chunks(struct row *r, float floor) {
    __shared__ int count[DRAW_THREADS];
    int per_thread = ceil_div(r->n, DRAW_THREADS), mine = 0, at = 0;
    int first = min_int(r->n, (int)threadIdx.x * per_thread), end = min_int(r->n, first + per_thread);
    for (int i = first; i < end; i++) mine += r->max[i] >= floor;
    count[threadIdx.x] = mine;
    __syncthreads();
    for (int i = 0; i < DRAW_THREADS; i++) {
        if (i == (int)threadIdx.x) mine = at;
        at += count[i];
    }
    r->n_active = at;
    for (int i = first; i < end; i++) {
        if (r->max[i] >= floor) r->active[mine++] = i;
        else {
            r->max[i] = -INFINITY;
            r->sum[i] = 0;
        }
    }
    __syncthreads();
}

/* The logits of the active chunks: in shared memory where they fit, else looked up each time. */
struct candidates {
    const struct row *r;
    const float *cache;
};

static __device__ __forceinline__ float candidate(struct candidates c, int i) {
    return c.cache ? c.cache[i] : logit(c.r, c.r->active[i / CHUNK] * CHUNK + i % CHUNK);
}
static __device__ struct candidates gather_candidates(const struct row *r, float *cache) {
    if (r->n_active > CACHED_CHUNKS) return (struct candidates){r, NULL};
    struct candidates c = {r, NULL};
    for (int i = (int)threadIdx.x; i < r->n_active * CHUNK; i += DRAW_THREADS) cache[i] = candidate(c, i);
    __syncthreads();
    return (struct candidates){r, cache};
}

/* Over candidates z >= t: how many, and the sum of e^(z - top). More terms in the same order cannot sum to less. */
static __device__ float count_from(struct candidates c, float t) {
    int found = 0;
    for (int i = (int)threadIdx.x; i < c.r->n_active * CHUNK; i += DRAW_THREADS) found += candidate(c, i) >= t;
    return block_sum((float)found, c.r->shared);
}
static __device__ float mass_from(struct candidates c, float t, float top) {
    float sum = 0;
    for (int i = (int)threadIdx.x; i < c.r->n_active * CHUNK; i += DRAW_THREADS) {
        float z = candidate(c, i);
        if (z >= t) sum += exp_approx(below(z, top));
    }
    return block_sum(sum, c.r->shared);
}

/* The id of the `keep`-th candidate that equals t, ids ascending; the last one if there are fewer. */
static __device__ int tie_id(struct candidates c, float t, int keep) {
    __shared__ int ties[DRAW_THREADS], found;
    int n = c.r->n_active * CHUNK, per_thread = ceil_div(n, DRAW_THREADS), mine = 0, before = 0;
    int first = min_int(n, (int)threadIdx.x * per_thread), end = min_int(n, first + per_thread);
    for (int i = first; i < end; i++) mine += candidate(c, i) == t;
    ties[threadIdx.x] = mine;
    if (threadIdx.x == 0) found = INT32_MAX;
    __syncthreads();
    for (int i = 0; i < (int)threadIdx.x; i++) before += ties[i];
    for (int i = first; before < keep && i < end; i++)
        if (candidate(c, i) == t && ++before == keep) found = c.r->active[i / CHUNK] * CHUNK + i % CHUNK;
    __syncthreads();
    return found;
}

/* Top-k (ties with the k-th stay), then top-p (the fewest ids that reach it: largest logits first, among equals
   lowest ids), then min-p against the largest. total: mass of all, in e^top. Chunks outside the support weigh nothing
   afterwards. */
static __device__ struct support find_support(struct row *r, const struct sampler *p, float top, float total, int V) {
    __shared__ float cache[CACHED_CHUNKS * CHUNK];
    struct support s = EVERY_ID;
    int by_count = p->top_k > 0 && p->top_k < V, by_mass = p->top_p < 1;
    if (by_count || by_mass) {
        float floor = by_count ? top_k_floor(r, p->top_k, top) : top_p_floor(r, p->top_p * total, top);
        activate_chunks(r, floor);
        struct candidates c = gather_candidates(r, cache);
        auto count = [&](float t) { return count_from(c, t); };
        auto mass = [&](float t) { return mass_from(c, t, top); };
        if (by_count) s.threshold = largest_with(count, (float)p->top_k, floor, top);
        if (by_mass) {
            float goal = p->top_p * (by_count ? mass(s.threshold) : total);
            s.threshold = largest_with(mass, goal, fmaxf(s.threshold, floor), top);
            float missing = goal - mass(float_at(order_of(s.threshold) + 1));
            float ties = ceilf(missing / exp_approx(below(s.threshold, top)));
            s.last = tie_id(c, s.threshold, ties > 1 ? (int)fminf(ties, (float)V) : 1);
        }
    }
    float least = p->min_p > 0 ? top + logf(p->min_p) : -INFINITY;
    if (least > s.threshold) s = (struct support){least, INT32_MAX};
    if (s.threshold > -INFINITY) {
        activate_chunks(r, s.threshold);
        measure_chunks(r, r->active, r->n_active, s);
    }
    return s;
}

/* -- drawing ----------------------------------------------------------------------------------------------------- */

/* The first i at which *sum, which grows by mass(i), passes goal; at the end the last with a mass. */
template <typename Mass> static __device__ int pass(Mass mass, int n, double *sum, double goal) {
    int last = 0;
    for (int i = 0; i < n; i++) {
        double m = mass(i);
        if (!(m > 0)) continue;
        if (*sum + m > goal) return i;
        *sum += m;
        last = i;
    }
    return last;
}

/* Inverse CDF over ids ascending, by groups of threads' chunks, threads, chunks and ids. */
static __device__ int draw(const struct row *r, struct support s, float top, float u) {
    __shared__ double group[GROUPS], part[DRAW_THREADS];
    __shared__ float weight[CHUNK];
    __shared__ double sum, goal;
    __shared__ int chunk, id;
    int per_thread = ceil_div(r->n, DRAW_THREADS), per_group = DRAW_THREADS / GROUPS;
    auto chunk_weight = [&](int i) { return i < r->n ? (double)(r->sum[i] * expf(below(r->max[i], top))) : 0; };
    part[threadIdx.x] = 0;
    for (int i = 0; i < per_thread; i++) part[threadIdx.x] += chunk_weight((int)threadIdx.x * per_thread + i);
    __syncthreads();
    if (threadIdx.x < GROUPS) {
        group[threadIdx.x] = 0;
        for (int i = 0; i < per_group; i++) group[threadIdx.x] += part[(int)threadIdx.x * per_group + i];
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0;
        for (int i = 0; i < GROUPS; i++) total += group[i];
        goal = u * total;
        sum = 0;
        int thread = per_group * pass([&](int i) { return group[i]; }, GROUPS, &sum, goal);
        thread += pass([&](int i) { return part[thread + i]; }, per_group, &sum, goal);
        chunk = thread * per_thread;
        chunk += pass([&](int i) { return chunk_weight(chunk + i); }, per_thread, &sum, goal);
    }
    __syncthreads();
    if (threadIdx.x < CHUNK) {
        float z = kept_logit(r, s, chunk * CHUNK + (int)threadIdx.x);
        weight[threadIdx.x] = exp_approx(below(z, top));
    }
    __syncthreads();
    if (threadIdx.x == 0) id = chunk * CHUNK + pass([&](int i) { return (double)weight[i]; }, CHUNK, &sum, goal);
    __syncthreads();
    return id;
}

/* the lowest id with logit `top`, the largest */
static __device__ int highest(const struct row *r, float top) {
    float first = -INFINITY;                           /* minus the lowest */
    for (int i = (int)threadIdx.x; i < r->n; i += DRAW_THREADS)
        if (r->max[i] == top) first = fmaxf(first, (float)-i);
    int chunk = (int)-block_max(first, r->shared);
    bool hit = threadIdx.x < CHUNK && logit(r, chunk * CHUNK + (int)threadIdx.x % CHUNK) == top;
    return chunk * CHUNK + (int)-block_max(hit ? -(float)threadIdx.x : -INFINITY, r->shared);
}

/* A block a row. Not finite, or every id forbidden: id -1 and NaN. */
static __global__ void __launch_bounds__(DRAW_THREADS, 3) draw_rows(struct draw_args a) {
    __shared__ float work[2 * MERGE_LANES], sums[WARP];
    const struct sampler *p = &a.sampler;
    int i = (int)blockIdx.x, n = a.n_chunks;
    float *own = a.chunks + (size_t)i * 3 * n, policy_lse = a.stats.lse[i], lse = policy_lse;
    struct sample_key key = a.keys[i];
    uint8_t *seen = a.seen ? a.seen + (size_t)i * a.V : NULL;
    struct row r = {a.z + i * a.pitch,
                    p->repetition_penalty != 1 ? seen : NULL,
                    p->forbidden,
                    p->repetition_penalty,
                    own,
                    own + n,
                    (int *)(own + 2 * n),
                    n,
                    0,
                    sums};
    bool masked = r.seen || r.forbidden, stops = key.no_stop && p->n_stop > 0;
    if (masked) measure_chunks(&r, NULL, n, EVERY_ID);
    else {
        for (int k = (int)threadIdx.x; k < n; k += DRAW_THREADS) {
            r.max[k] = a.stats.max[k * a.stats.pitch + i];
            r.sum[k] = a.stats.sum[k * a.stats.pitch + i];
        }
        __syncthreads();
    }
    if (stops) remove_ids(&r, p->stop_ids, p->n_stop);
    struct mass m = row_mass<1>(r.max, r.sum, NULL, 1, n, work);
    if (masked || stops) lse = mass_lse(m);
    struct sampled out = {-1, NAN, NAN, NAN};
    if (isfinite(policy_lse) && isfinite(lse)) {
        if (p->temperature > 0) {
            struct support s = find_support(&r, p, m.max, m.sum, a.V);
            if (s.threshold > -INFINITY) lse = mass_lse(row_mass<1>(r.max, r.sum, NULL, 1, n, work));
            uint32_t bits = philox(key.seed, key.position, key.sample, key.prompt, key.step).x[0];
            out.id = draw(&r, s, m.max, philox_uniform(bits));
        } else out.id = highest(&r, m.max);
    }
    if (threadIdx.x) return;
    a.next[i] = max_int(out.id, 0);
    if (out.id >= 0) {
        out.logp = logit(&r, out.id) - lse;
        out.policy_logp = r.z[out.id] - policy_lse;
        out.entropy = a.stats.entropy[i];
        if (seen) seen[out.id] = 1;
    }
    a.out[i] = out;
}

/* -- the call ---------------------------------------------------------------------------------------------------- */

struct sample_plan {
    int rows;                        /* at once */
    size_t pitch;
    struct row_stats stats;
    float *z, *chunks;
};

static struct sample_plan plan_sample(struct cut *c, int S, int V) {
    struct sample_plan p;
    p.rows = min_int(SAMPLE_ROWS, S);
    p.pitch = (size_t)round_up(V, CHUNK);
    p.stats = cut_row_stats(c, p.rows, V);
    p.z = (float *)cut_piece(c, p.pitch * p.rows, sizeof(float));
    p.chunks = (float *)cut_piece(c, 3 * (size_t)p.rows * ceil_div(V, CHUNK), sizeof(float));
    return p;
}

size_t sample_scratch(const struct op_limits *need) {
    struct cut c = {NULL, 0};
    plan_sample(&c, need->slots, need->vocab);
    return c.at;
}

/* FLOPs: 2 S C V. Bytes: W, and 4 S V written; a row's block reads some kilobytes of that, all of it when a penalty or
   forbidden ids change it. */
int cuda_sample(void *ctx_, struct sampled *out, int32_t *next, uint8_t *seen, const real *h, const weight *W,
                const struct sampler *sampler, const struct sample_key *keys, int S, int C, int V) {
    const struct cuda_ctx *ctx = (const struct cuda_ctx *)ctx_;
    struct cut size = {NULL, 0}, c = {NULL, 0};
    plan_sample(&size, S, V);
    TRY(scratch((void **)&c.base, ctx, size.at));
    struct sample_plan p = plan_sample(&c, S, V);
    float scale = sampler->temperature > 0 ? 1 / sampler->temperature : 1;
    for (int row = 0; row < S; row += p.rows) {
        int rows = min_int(p.rows, S - row);
        struct draw_args a = {out + row, next + row,        seen ? seen + (size_t)row * V : NULL,
                              p.z,       p.pitch,           p.stats,
                              p.chunks,  *sampler,          keys + row,
                              V,         ceil_div(V, CHUNK)};
        TRY(softmax_rows(ctx, &p.stats, p.z, p.pitch, (const bf16 *)h + (size_t)row * C, W, NULL, scale, rows, C, V));
        LAUNCH(ctx, draw_rows, rows, DRAW_THREADS, 0, a);
    }
    return OK;
}
