/* Floor 3: the images of prompts, on the host. */
#ifndef GRPO_PICTURES_H
#define GRPO_PICTURES_H

#include <stdint.h>

/* One image: what a tower reads, or what it made of it. */
struct picture {
    int64_t grid[3];                     /* frames, rows and columns of patches */
    const float *pixels; /* (patches, patch_columns) cell by cell, cells and the patches of a cell row by
                                            row; may be NULL where there are features */
    const void *features;                /* (levels, cells, d) reals; NULL: the tower is asked */
    int cells;                           /* tokens of its prompt that it stands for */
};

/* Images of a list of prompts, and where the tokens of such prompts stand. */
struct pictures {
    const struct picture *list;
    const int64_t *offset;               /* (prompts + 1) images of each prompt */
    const int64_t *token_offset;         /* (prompts + 1) into `tokens` */
    const int32_t *tokens;               /* places in the prompt of its images' tokens, ascending */
    const int32_t *positions;            /* (axes, tokens of all prompts) */
    const int32_t *next;                 /* (prompts) position, on every axis, of the first token after a prompt */
};

#endif
