#include "net/grid.h"

#include <assert.h>
#include <stdlib.h>

#include "base/base.h"
#include "net/rows.h"

int pictures_check(const struct picture *list, int n, const struct spec *s) {
    int side = s->vision.side;
    int64_t rows = 0;
    for (int i = 0; i < n; i++) {
        const int64_t *g = list[i].grid;
        int good = g[0] > 0 && g[1] > 0 && g[2] > 0 && g[0] < ROWS_MAX && g[1] < ROWS_MAX && g[2] < ROWS_MAX;
        if (!good || g[1] % side || g[2] % side || g[0] * g[1] > ROWS_MAX / 2 / g[2])
            return fail(E_CONFIG,
                        "image %d has a grid of %lld x %lld x %lld patches; its sides must be multiples of %d", i,
                        (long long)g[0], (long long)g[1], (long long)g[2], side);
        if (list[i].cells != patches_of(&list[i]) / cell_patches(s))
            return fail(E_CONFIG,
                        "image %d has %d tokens in its prompt, its grid of %lld x %lld x %lld patches has %lld", i,
                        list[i].cells, (long long)g[0], (long long)g[1], (long long)g[2],
                        (long long)(patches_of(&list[i]) / cell_patches(s)));
        rows += picture_rows(s, &list[i], 1);
        if (rows > ROWS_MAX) return fail(E_CONFIG, "images of more than %d patches together", ROWS_MAX);
    }
    return OK;
}

int picture_rows(const struct spec *s, const struct picture *list, int n) {
    int cells = 0;
    for (int i = 0; i < n; i++) cells += round_up(list[i].cells, ROW_ALIGN);
    return cells * cell_patches(s);
}

/* Point i of n that are evenly spaced from 0 to last, as torch.linspace rounds it */
static float even_point(int i, int n, int last) {
    float step = n > 1 ? (float)last / (float)(n - 1) : 0;
    return i < n / 2 || n == 1 ? step * (float)i : (float)last - step * (float)(n - 1 - i);
}

/* Bilinear taps of a table (side, side) at one patch of a grid */
static void set_taps(int32_t *taps, float *weights, int side, int y, int x, int height, int width) {
    float py = even_point(y, height, side - 1), px = even_point(x, width, side - 1);
    int y0 = (int)py, x0 = (int)px, y1 = min_int(y0 + 1, side - 1), x1 = min_int(x0 + 1, side - 1);
    float dy = py - (float)y0, dx = px - (float)x0;
    taps[0] = y0 * side + x0, weights[0] = (1 - dy) * (1 - dx);
    taps[1] = y0 * side + x1, weights[1] = (1 - dy) * dx;
    taps[2] = y1 * side + x0, weights[2] = dy * (1 - dx);
    taps[3] = y1 * side + x1, weights[3] = dy * dx;
}

/* The next row, and the size of its image in patches */
struct place {
    const struct spec *spec;
    int row, height, width;
};

/* The patches of one cell (cy, cx) of frame f */
static void add_cell(struct grid_tables *t, struct place *at, int f, int cy, int cx) {
    const struct spec *s = at->spec;
    int side = s->vision.side, across = at->width / side;
    int cell = (f * (at->height / side) + cy) * across + cx, first = at->row;
    t->cells[t->n_cells + cell] = first / cell_patches(s);
    for (int y = cy * side; y < (cy + 1) * side; y++)
        for (int x = cx * side; x < (cx + 1) * side; x++, at->row++) {
            t->source[at->row] = cell * cell_patches(s) + at->row - first;
            t->positions[at->row] = y;
            t->positions[t->N + at->row] = x;
            if (t->taps)
                set_taps(t->taps + (size_t)at->row * TAPS, t->tap_weights + (size_t)at->row * TAPS,
                         s->vision.table_side, y, x, at->height, at->width);
        }
}

static void add_frame(struct grid_tables *t, struct place *at, int f) {
    const struct vision_spec *v = &at->spec->vision;
    int rows = at->height / v->side, columns = at->width / v->side, begin = at->row;
    int window = v->window ? v->window : max_int(rows, columns);
    for (int wy = 0; wy < rows; wy += window)
        for (int wx = 0; wx < columns; wx += window) {
            int first = at->row;
            for (int cy = wy; cy < min_int(rows, wy + window); cy++)
                for (int cx = wx; cx < min_int(columns, wx + window); cx++) add_cell(t, at, f, cy, cx);
            t->windows[t->n_windows++] = (struct segment){.start = first, .len = at->row - first};
        }
    t->segments[t->n_segments++] = (struct segment){.start = begin, .len = at->row - begin};
    t->longest = max_int(t->longest, at->row - begin);
}

static void fill(struct grid_tables *t, const struct spec *s, const struct picture *list, int n) {
    struct place at = {.spec = s};
    for (int i = 0; i < n; i++) {
        const struct picture *p = &list[i];
        int end = at.row + picture_rows(s, p, 1);
        at.height = (int)p->grid[1];
        at.width = (int)p->grid[2];
        for (int f = 0; f < p->grid[0]; f++) add_frame(t, &at, f);
        t->n_cells += p->cells;
        for (; at.row < end; at.row++) t->source[at.row] = -1;         /* the rest of its tables stays 0 */
    }
    assert(at.row == t->N);
}

int grid_tables_create(struct grid_tables *t, const struct spec *s, const struct picture *list, int n) {
    *t = (struct grid_tables){.N = picture_rows(s, list, n)};
    size_t N = (size_t)t->N, cells = N / (size_t)cell_patches(s);
    t->source = calloc(N + 1, sizeof *t->source);
    t->positions = calloc(2 * N + 1, sizeof *t->positions);
    t->cells = calloc(cells + 1, sizeof *t->cells);
    t->segments = calloc(cells + 1, sizeof *t->segments);
    t->windows = calloc(cells + 1, sizeof *t->windows);
    int table = s->vision.table_side > 0, good = t->source && t->positions && t->cells && t->segments && t->windows;
    if (table) t->taps = calloc(N * TAPS + 1, sizeof *t->taps);
    if (table) t->tap_weights = calloc(N * TAPS + 1, sizeof *t->tap_weights);
    if (good && (!table || (t->taps && t->tap_weights))) return fill(t, s, list, n), OK;
    grid_tables_free(t);
    return fail(E_MEMORY, "no memory for the grids of %d images", n);
}

void grid_tables_free(struct grid_tables *t) {
    free(t->source);
    free(t->positions);
    free(t->cells);
    free(t->segments);
    free(t->windows);
    free(t->taps);
    free(t->tap_weights);
    *t = (struct grid_tables){0};
}
