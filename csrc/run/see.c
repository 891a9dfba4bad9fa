#include "run/see.h"

#include "base/base.h"

/* Images from `first` on whose rows fit the budget, at least one */
static int images_within(const struct spec *s, const struct picture *list, int first, int n, int budget) {
    int end = first + 1, rows = picture_rows(s, list + first, 1);
    while (end < n && (rows += picture_rows(s, list + end, 1)) <= budget) end++;
    return end - first;
}

static size_t feature_bytes(const struct ops *ops, const struct spec *s, int rows) {
    size_t cells = (size_t)(rows / cell_patches(s)) * (size_t)feature_levels(s);
    return cells * (size_t)s->vision.out * (size_t)ops->real_size;
}

size_t see_bytes(const struct ops *ops, const struct spec *tower, int rows) {
    return tower_bytes(ops, tower, STASH_NOTHING, rows) + feature_bytes(ops, tower, rows);
}

static int download(const struct weights *w, void *const *features, const struct feature_rows *f,
                    const struct picture *list, int n) {
    const struct spec *s = &w->spec;
    size_t row = (size_t)s->vision.out * (size_t)w->device.ops->real_size;
    for (int i = 0, first = 0; i < n; first += list[i++].cells)
        for (int level = 0; level < feature_levels(s); level++)
            TRY(device_download(&w->device, (char *)features[i] + (size_t)level * (size_t)list[i].cells * row,
                                (const char *)f->values + ((size_t)level * (size_t)f->n + (size_t)first) * row,
                                (size_t)list[i].cells * row));
    return OK;
}

static int see_batch(struct tower *t, void *const *features, real *values, const struct picture *list, int n) {
    struct feature_rows f = {.values = values};
    for (int i = 0; i < n; i++) f.n += list[i].cells;
    TRY(tower_forward(t, &f, list, n));
    return download(t->weights, features, &f, list, n);
}

int see(const struct weights *tower, struct workspace *workspace, void *const *features, const struct picture *list,
        int n, int patch_budget) {
    const struct spec *s = &tower->spec;
    if (patch_budget < 1) return fail(E_CONFIG, "patch_budget is %d, must be positive", patch_budget);
    TRY(pictures_check(list, n, s));
    int rows = 0;
    for (int i = 0, count; i < n; i += count) {
        count = images_within(s, list, i, n, patch_budget);
        rows = max_int(rows, picture_rows(s, list + i, count));
    }
    struct tower t;
    TRY(tower_create(&t, tower, STASH_NOTHING, rows));
    void *memory;
    int status = workspace_take(workspace, &memory, t.bytes + feature_bytes(tower->device.ops, s, rows));
    if (!status) tower_place(&t, memory);
    for (int i = 0, count; i < n && !status; i += count) {
        count = images_within(s, list, i, n, patch_budget);
        status = see_batch(&t, features + i, (char *)memory + t.bytes, list + i, count);
    }
    tower_free(&t);
    return status;
}
