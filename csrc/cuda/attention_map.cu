/* Which block does what in attention: one block reads the segments, which the host does not know, and lists the tiles
   of queries, the gaps and (for the backward) the tasks of dK and dV. A few microseconds for a batch of 16k rows. */
#include "cuda/attention.cuh"

enum { MAP_THREADS = 256, MAP_WARPS = MAP_THREADS / WARP };

static void *place(char **memory, size_t bytes, size_t *total) {
    char *p = *memory;
    bytes = (bytes + 255) / 256 * 256;
    *total += bytes;
    if (p) *memory = p + bytes;
    return p;
}

size_t attention_map_place(struct attention_map *map, char **memory, int N, int n_segments, int group) {
    size_t total = 0, rows = (size_t)N, segments = (size_t)n_segments;
    map->count = (int *)place(memory, COUNTS * sizeof(int), &total);
    map->query_tasks = (struct query_task *)place(
        memory, (size_t)query_tiles_max(N, n_segments, group, 64) * sizeof(struct query_task), &total);
    map->gap = (int *)place(memory, rows * sizeof(int), &total);
    map->segment_of = (int *)place(memory, rows * sizeof(int), &total);
    map->key_tasks = (struct key_task *)place(memory, (size_t)key_tasks_max(N, n_segments) * sizeof(struct key_task),
                                               &total);
    map->slices = (int *)place(memory, segments * sizeof(int), &total);
    map->dependent_tiles = (int *)place(memory, segments * sizeof(int), &total);
    return total;
}

/* Sum over the threads before this one; *total: over all. part: (MAP_WARPS) of shared memory. */
static __device__ int block_scan(int v, int *total, int *part) {
    int lane = lane_id(), sum = v, before = 0, all = 0;
    for (int step = 1; step < WARP; step *= 2) {
        int below = shuffle(sum, lane >= step ? lane - step : lane);
        if (lane >= step) sum += below;
    }
    __syncthreads();
    if (lane == WARP - 1) part[warp_id()] = sum;
    __syncthreads();
    for (int i = 0; i < MAP_WARPS; i++) {
        if (i < warp_id()) before += part[i];
        all += part[i];
    }
    *total = all;
    return before + sum - v;
}

static __device__ int tiles_of(int rows, int group, int pairs) { return (rows * group + pairs - 1) / pairs; }

static __device__ int covered_rows(const struct segment *segments, int n, int *part) {
    int rows = 0, total;
    for (int s = threadIdx.x; s < n; s += MAP_THREADS) rows += segments[s].len;
    block_scan(rows, &total, part);
    return total;
}

static __device__ void find_segments(struct attention_map map, const struct segment *segments, int n, int N) {
    for (int row = threadIdx.x; row < N; row += MAP_THREADS) map.segment_of[row] = -1;
    __syncthreads();
    for (int s = warp_id(); s < n; s += MAP_WARPS)
        for (int i = lane_id(); i < segments[s].len; i += WARP) map.segment_of[segments[s].start + i] = s;
    __syncthreads();
}

static __device__ void list_gaps(struct attention_map map, int N, int *part) {
    int each = (N + MAP_THREADS - 1) / MAP_THREADS, n = 0, total;
    int begin = min(N, (int)threadIdx.x * each), end = min(N, begin + each);
    for (int row = begin; row < end; row++) n += map.segment_of[row] < 0;
    int at = block_scan(n, &total, part);
    for (int row = begin; row < end; row++)
        if (map.segment_of[row] < 0) map.gap[at++] = row;
    if (threadIdx.x == 0) map.count[GAPS] = total;
}

/* Within a segment the last tile, which has most keys, comes first. */
static __device__ void list_query_tiles(struct attention_map map, const struct segment *segments, int n, int group,
                                        int pairs, int *part) {
    int done = 0, total;
    for (int base = 0; base < n; base += MAP_THREADS, done += total) {
        int s = base + (int)threadIdx.x, tiles = s < n ? tiles_of(segments[s].len, group, pairs) : 0;
        int at = done + block_scan(tiles, &total, part);
        while (tiles--) map.query_tasks[at++] = {s, tiles};
    }
    if (threadIdx.x == 0) map.count[QUERY_TILES] = done;
}

/* dependent_tiles and slices of each segment. A prompt's rows are seen by all its completions, so the queries behind
   them are shared out over slices: as many as a function of the group alone says (C2), and so few that the sums of all
   slices have no more rows than the completions: each completion counts where its prefix begins. Of a completion, the
   rows whose window reaches back to the segment count. */
static __device__ void find_dependents(struct attention_map map, const struct segment *segments, int n,
                                       struct heads h) {
    for (int s = threadIdx.x; s < n; s += MAP_THREADS) map.dependent_tiles[s] = 0;
    __syncthreads();
    for (int s = threadIdx.x; s < n; s += MAP_THREADS) {
        struct segment x = segments[s];
        for (int row = x.prefix; x.len && row < x.prefix + x.prefix_len;) {
            int owner = map.segment_of[row++];
            if (owner < 0) continue;
            map.dependent_tiles[owner] = 1;
            row = segments[owner].start + segments[owner].len;
        }
    }
    __syncthreads();
    for (int s = warp_id(); s < n; s += MAP_WARPS) {
        struct segment own = segments[s];
        int tiles = 0, rows = 0;
        bool any = map.dependent_tiles[s] != 0;
        for (int d = lane_id(); any && d < n; d += WARP) {
            struct segment x = segments[d];
            int behind = rows_behind(x, own.start, own.len, h.window);
            tiles += tiles_of(behind, h.group, BWD_PAIRS);
            if (x.prefix >= own.start) rows += behind;
        }
        for (int mask = WARP / 2; mask; mask /= 2) {
            tiles += shuffle_xor(tiles, mask);
            rows += shuffle_xor(rows, mask);
        }
        __syncwarp();                                  /* all lanes have read what is written now */
        if (lane_id()) continue;
        map.dependent_tiles[s] = tiles;
        map.slices[s] = max(1, rows / max((int)SLICE_ROWS, own.len));
    }
    __syncthreads();
}

static __device__ void list_key_tasks(struct attention_map map, const struct segment *segments, int n, int *part) {
    int tasks = 0, rows = 0, total, total_rows;
    for (int base = 0; base < n; base += MAP_THREADS, tasks += total, rows += total_rows) {
        int s = base + (int)threadIdx.x, len = s < n ? segments[s].len : 0, slices = s < n ? map.slices[s] : 0;
        int at = tasks + block_scan((len + KEY_ROWS - 1) / KEY_ROWS * slices, &total, part);
        int sums = rows + block_scan(slices > 1 ? slices * len : 0, &total_rows, part);
        for (int slice = 0; slice < slices; slice++)
            for (int row = 0; row < len; row += KEY_ROWS)
                map.key_tasks[at++] = {s, row, slice, slices > 1 ? sums + slice * len : -1};
    }
    if (threadIdx.x == 0) map.count[KEY_TASKS] = tasks;
}

static __global__ void make_map(struct attention_map map, const struct segment *segments, int n, int N, struct heads h,
                                int pairs, bool backward) {
    __shared__ int part[MAP_WARPS];
    bool gaps = covered_rows(segments, n, part) < N;
    if (gaps || backward) find_segments(map, segments, n, N);
    if (gaps) list_gaps(map, N, part);
    else if (threadIdx.x == 0) map.count[GAPS] = 0;
    list_query_tiles(map, segments, n, h.group, pairs, part);
    if (!backward) return;
    find_dependents(map, segments, n, h);
    list_key_tasks(map, segments, n, part);
}

int attention_map(const struct cuda_ctx *ctx, struct attention_map map, const struct segment *segments, int n_segments,
                  int N, struct heads h, int pairs, bool backward) {
    LAUNCH(ctx, make_map, 1, MAP_THREADS, 0, map, segments, n_segments, N, h, pairs, backward);
    return OK;
}
