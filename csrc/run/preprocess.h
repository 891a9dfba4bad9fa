/* Floor 4: from the pixels of images to what a vision tower reads. Resampling is Pillow's bicubic filter, bit for bit:
   a pass over rows and one over columns, each rounded to bytes; a side that keeps its length has none. Which pass is
   the first is as in Pillow 13, whatever Pillow is installed; releases before it always began with the rows. */
#ifndef GRPO_PREPROCESS_H
#define GRPO_PREPROCESS_H

#include "ops/ops.h"

/* HOST: bytes (height, width, 3); and the size it is to be seen at. */
struct image {
    const uint8_t *pixels;
    int height, width;
    int new_height, new_width;
};

/* How a tower reads: patches of patch x patch pixels in blocks of merge x merge, `frames` times each; table (3, 256)
   HOST: the number that a byte of a colour becomes. */
struct patch_rule {
    int patch, merge, frames;
    const float *table;
};

/* Patches of an image, and numbers of a patch */
static inline int64_t image_patches(const struct image *image, const struct patch_rule *rule) {
    return (int64_t)(image->new_height / rule->patch) * (image->new_width / rule->patch);
}
static inline int64_t patch_numbers(const struct patch_rule *rule) {
    return (int64_t)3 * rule->frames * rule->patch * rule->patch;
}

/* The size near height x width, of about its shape, whose sides are multiples of `factor` and whose pixels are within
   the limits: that of Qwen2-VL and its successors. E_CONFIG where one side is more than 200 times the other. */
int smart_resize(int *new_height, int *new_width, int height, int width, int factor, int64_t min_pixels,
                 int64_t max_pixels);

/* rows (sum of image_patches(), patch_numbers()) in the device's memory: the patches of one image after another.
   Checks nothing of the images but that their new sizes are whole blocks. */
int preprocess(const struct device *device, float *rows, const struct image *images, int n,
               const struct patch_rule *rule);

#endif
