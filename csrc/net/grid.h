/* Floor 3: images as rows of a tower. An image's patches are a grid; side x side of them are a cell, which becomes one
   feature, and window x window cells are a window, which layers with by_window keep to. Rows stand window by window,
   cells of a window and patches of a cell row by row; each image's cells are followed by padding to ROW_ALIGN, so
   that gradients do not depend on how images are batched. */
#ifndef GRPO_GRID_H
#define GRPO_GRID_H

#include "net/pictures.h"
#include "net/spec.h"

/* E_CONFIG that names the image whose grid a tower cannot see, or whose cells are not that many */
int pictures_check(const struct picture *list, int n, const struct spec *s);
/* Rows of some images in a tower, padding and all */
int picture_rows(const struct spec *s, const struct picture *list, int n);
static inline int64_t patches_of(const struct picture *p) { return p->grid[0] * p->grid[1] * p->grid[2]; }
/* Features of an image */
static inline int64_t features_of(const struct spec *s, const struct picture *p) {
    return s->vision.queries ? s->vision.queries : patches_of(p) / cell_patches(s);
}

/* Rows in a tower of images, padding and all, of which only the number of features together is known: at most */
int64_t rows_of_features(const struct spec *s, int64_t features, int64_t images);
/* Features that so many rows of a tower give at most */
int features_of_rows(const struct spec *s, int rows);

enum { BICUBIC_TAPS = 16 };
static inline int taps_of(const struct spec *s) { return s->vision.table == TABLE_BICUBIC ? BICUBIC_TAPS : 4; }
/* Which rows of a table (side, side) make place (y, x) of a grid (height, width), and with which weights: edges on
   edges, Keys's kernel of a = -3/4, the border's rows for those beyond it */
void bicubic_taps(int32_t taps[BICUBIC_TAPS], float weights[BICUBIC_TAPS], int side, int y, int x, int height,
                  int width);

/* HOST tables of some images of a list */
struct grid_tables {
    int N, n_cells, n_segments, n_windows, longest;      /* rows; cells without padding; of a segment, in rows */
    int32_t *source;                     /* (N) its patch of its image; -1: padding */
    int32_t *positions;                  /* (2, N) row and column of each patch in its image */
    int32_t *cells; /* (n_cells) cell i of the images, row by row, is the tower's cell cells[i] */
    int32_t *taps; /* (N, taps_of) rows of the position table, where there is one */
    float *tap_weights; /* (N, taps_of) */
    struct segment *segments, *windows; /* (n_segments) a frame each; (n_windows) */
};
int grid_tables_create(struct grid_tables *t, const struct spec *s, const struct picture *list, int n);
void grid_tables_free(struct grid_tables *t);

#endif
