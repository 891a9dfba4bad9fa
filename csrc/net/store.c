#include "net/store.h"

#include <assert.h>
#include <stdlib.h>

#include "base/base.h"

static size_t measure(const struct ops *ops, const struct spec *s, enum stashing what, size_t rows) {
    struct stashes t = {.what = what};
    struct layout memory = {NULL, 0};
    stashes_lay_out(&t, &memory, s, (size_t)ops->real_size, rows, 0);
    return memory.at;
}

size_t store_row_bytes(const struct ops *ops, const struct spec *s, enum stashing what) {
    return measure(ops, s, what, 1024) / 1024;
}

void store_create(struct store *k, const struct weights *w, enum stashing what) {
    *k = (struct store){.weights = w, .stash.what = what, .version = w->version};
}

void store_clear(struct store *k) {
    for (int i = 0; i < k->n_groups; i++) free(k->groups[i]);
    k->n_groups = 0;
    k->promised = 0;
    k->n_free = 0;
    for (int row = 0; row < k->n_spare; row++) k->spare_rows[row] = row;
    for (int row = k->capacity - 1; row >= k->n_spare; row--) k->free_rows[k->n_free++] = row;
    k->version = k->weights->version;
}

static void release_memory(struct store *k) {
    device_release(&k->weights->device, k->arena);
    free(k->stash.layers);
    free(k->free_rows);
    k->arena = NULL;
    k->stash.layers = NULL;
    k->free_rows = k->spare_rows = NULL;
    k->capacity = k->n_spare = k->n_free = 0;
    k->bytes = 0;
}

void store_free(struct store *k) {
    store_clear(k);
    release_memory(k);
    free(k->groups);
    k->groups = NULL;
}

static int grow(struct store *k, int rows, int spare) {
    const struct weights *w = k->weights;
    size_t capacity = (size_t)rows + (size_t)spare;
    release_memory(k);
    k->stash.layers = calloc((size_t)w->spec.n_layers, sizeof *k->stash.layers);
    k->free_rows = malloc(2 * capacity * sizeof *k->free_rows);
    if (!k->stash.layers || !k->free_rows) {
        release_memory(k);
        return fail(E_MEMORY, "no memory for a store of %d rows", rows);
    }
    size_t bytes = measure(w->device.ops, &w->spec, k->stash.what, capacity);
    k->arena = device_alloc(&w->device, bytes);
    if (!k->arena) {
        release_memory(k);
        return fail(E_MEMORY, "keeping the rollout's activations needs %.2f GB: set keep_rollout_activations to false",
                    (double)bytes / 1e9);
    }
    struct layout memory = {k->arena, 0};
    stashes_lay_out(&k->stash, &memory, &w->spec, (size_t)w->device.ops->real_size, capacity, 0);
    assert(memory.at == bytes);
    k->bytes = bytes;
    k->capacity = (int)capacity;
    k->spare_rows = k->free_rows + capacity;
    k->n_spare = spare;
    return OK;
}

int store_reserve(struct store *k, int *usable, int rows, int spare) {
    if (k->version != k->weights->version || !k->n_groups) {
        int had = k->capacity - k->n_spare;
        store_clear(k);
        if (rows > had || spare > k->n_spare) TRY(grow(k, max_int(rows, had), max_int(spare, k->n_spare)));
        store_clear(k);
    }
    k->promised = 0;
    while (k->n_spare < spare && k->n_free) k->spare_rows[k->n_spare++] = k->free_rows[--k->n_free];
    *usable = k->n_spare >= spare;
    return OK;
}

static int32_t take_row(struct store *k) {
    assert(k->n_free > 0);
    return k->free_rows[--k->n_free];
}

int store_open(struct store *k, struct stored_group **out, int prompt_length, int n, int width) {
    int64_t most = (int64_t)n * width;
    size_t numbers = (size_t)prompt_length + (size_t)most + (size_t)n;
    *out = NULL;
    if (k->promised + prompt_length + most > k->n_free) return OK;
    if (k->n_groups == k->groups_max) {
        int more = max_int(16, 2 * k->groups_max);
        struct stored_group **groups = realloc(k->groups, (size_t)more * sizeof *groups);
        if (!groups) return fail(E_MEMORY, "no memory for %d stored groups", more);
        k->groups = groups;
        k->groups_max = more;
    }
    struct stored_group *g = calloc(1, sizeof *g + numbers * sizeof *g->rows);
    if (!g) return fail(E_MEMORY, "no memory for a stored group of %d completions", n);
    *g = (struct stored_group){.first_id = k->next_id, .n = n, .width = width, .prompt_length = prompt_length};
    g->prompt = (int32_t *)(g + 1);
    g->rows = g->prompt + prompt_length;
    g->length = g->rows + most;
    for (int i = 0; i < prompt_length; i++) g->prompt[i] = take_row(k);
    k->next_id += n;
    k->promised += most;
    assert(k->promised <= k->n_free);
    *out = k->groups[k->n_groups++] = g;
    return OK;
}

int32_t store_token(struct store *k, struct stored_group *g, int completion) {
    assert(g->length[completion] < g->width);
    k->promised--;
    return g->rows[(size_t)completion * (size_t)g->width + (size_t)g->length[completion]++] = take_row(k);
}

static void give_back(struct store *k, const int32_t *rows, int n) {
    assert(k->n_free + n <= k->capacity - k->n_spare);
    for (int i = 0; i < n; i++) k->free_rows[k->n_free++] = rows[i];
}

void store_end(struct store *k, struct stored_group *g, int completion, int rows) {
    int run = g->length[completion];
    assert(rows <= run);
    k->promised -= g->width - run;
    assert(k->promised >= 0);
    give_back(k, g->rows + (size_t)completion * (size_t)g->width + rows, run - rows);
    g->length[completion] = rows;
}

/* Place of the group that has completion `id`, or -1 */
static int place_of(const struct store *k, int64_t id) {
    int begin = 0, end = k->n_groups;
    while (begin < end) {
        int middle = (begin + end) / 2;
        const struct stored_group *g = k->groups[middle];
        if (id < g->first_id) end = middle;
        else if (id >= g->first_id + g->n) begin = middle + 1;
        else return middle;
    }
    return -1;
}

void store_forget(struct store *k, const int64_t *ids, int n) {
    for (int i = 0; i < n; i++) {
        int place = place_of(k, ids[i]);
        if (place < 0) continue;
        struct stored_group *g = k->groups[place];
        give_back(k, g->prompt, g->prompt_length);
        for (int c = 0; c < g->n; c++) give_back(k, g->rows + (size_t)c * (size_t)g->width, g->length[c]);
        free(g);
        memmove(k->groups + place, k->groups + place + 1, (size_t)(--k->n_groups - place) * sizeof *k->groups);
    }
}

const struct stored_group *store_find(const struct store *k, int *completion, int64_t id, int prompt_length, int rows) {
    int place = k->version == k->weights->version ? place_of(k, id) : -1;
    if (place < 0) return NULL;
    const struct stored_group *g = k->groups[place];
    *completion = (int)(id - g->first_id);
    return g->prompt_length == prompt_length && g->length[*completion] == rows ? g : NULL;
}
