#include "model/kept.h"

#include <stdlib.h>

size_t kept_row_bytes(const struct ops *ops, const struct config *c, enum keep keep) {
    return activations_bytes(ops, c, keep, 1024, 0) / 1024;
}

void kept_free(struct model *m) {
    struct kept *k = m->kept;
    if (!k) return;
    device_release(&m->device, k->arena);
    activations_free(&k->store);
    free(k->prompt_row);
    free(k->row);
    free(k);
    m->kept = NULL;
}

/* The store's memory stays from one rollout to the next, and grows. */
static int reserve_store(struct kept *k, struct model *m, enum keep keep, int rows) {
    if (rows > k->store.rows_max || keep != k->store.keep) {
        device_release(&m->device, k->arena);
        activations_free(&k->store);
        k->arena = NULL;
        TRY(activations_create(&k->store, m, keep, rows, 0));
        k->arena = device_alloc(&m->device, k->store.bytes);
        if (!k->arena) {
            double bytes = (double)k->store.bytes;
            activations_free(&k->store);
            return fail(E_MEMORY, "keeping the rollout's activations needs %.2f GB: set keep_rollout_activations to false", bytes / 1e9);
        }
        activations_place(&k->store, k->arena);
    }
    return OK;
}

int kept_begin(struct model *m, int n_prompts, int num_generations, int width, enum keep keep, int rows, int spare) {
    struct kept *k = m->kept;
    if (!k && !(k = m->kept = calloc(1, sizeof *k))) return fail(E_MEMORY, "no memory for kept activations");
    int64_t first_id = k->first_id + (int64_t)k->n_prompts * k->num_generations;
    size_t n = (size_t)n_prompts * (size_t)num_generations;
    free(k->prompt_row);
    free(k->row);
    k->n_prompts = 0;
    k->first_id = first_id;
    k->prompt_row = malloc(2 * (size_t)n_prompts * sizeof *k->prompt_row);
    k->row = calloc(n * (size_t)(width + 1), sizeof *k->row);
    if (!k->prompt_row || !k->row) return fail(E_MEMORY, "no memory for kept activations");
    TRY(reserve_store(k, m, keep, rows + spare));
    k->prompt_length = k->prompt_row + n_prompts;
    k->length = k->row + n * (size_t)width;
    for (int i = 0; i < n_prompts; i++) k->prompt_row[i] = -1;
    k->n_prompts = n_prompts;
    k->num_generations = num_generations;
    k->width = width;
    k->spare = k->used = spare;
    k->promised = 0;
    k->version = m->version;
    return OK;
}

int32_t kept_prompt(struct kept *k, int prompt, int length) {
    int64_t most = (int64_t)k->num_generations * k->width;
    if (k->used + k->promised + length + most > k->store.rows_max) return -1;
    k->promised += most;
    k->prompt_length[prompt] = length;
    k->prompt_row[prompt] = k->used;
    k->used += length;
    return k->prompt_row[prompt];
}

int32_t kept_token(struct kept *k, int completion) {
    if (k->prompt_row[completion / k->num_generations] < 0) return -1;
    k->promised--;
    return k->row[(size_t)completion * (size_t)k->width + (size_t)k->length[completion]++] = k->used++;
}

void kept_end(struct kept *k, int completion, int rows) {
    if (k->prompt_row[completion / k->num_generations] < 0) return;
    k->promised -= k->width - k->length[completion];
    k->length[completion] = rows;
}

int kept_find(const struct model *m, int64_t id, int prompt_length, int rows) {
    const struct kept *k = m->kept;
    if (!k || k->version != m->version || id < k->first_id || id >= k->first_id + (int64_t)k->n_prompts * k->num_generations) return -1;
    int completion = (int)(id - k->first_id), prompt = completion / k->num_generations;
    return k->prompt_row[prompt] >= 0 && k->prompt_length[prompt] == prompt_length && k->length[completion] == rows ? completion : -1;
}
