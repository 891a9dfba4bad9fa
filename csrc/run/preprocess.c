#include "run/preprocess.h"

#include <math.h>
#include <stdlib.h>

#include "base/base.h"
#include "ops/device.h"

int smart_resize(int *new_height, int *new_width, int height, int width, int factor, int64_t min_pixels,
                 int64_t max_pixels) {
    if (height < 1 || width < 1) return fail(E_CONFIG, "%d x %d pixels are no image", height, width);
    if (max_int(height, width) / (double)min_int(height, width) > 200)
        return fail(E_CONFIG, "%d x %d pixels: one side is more than 200 times the other", height, width);
    /* rint: ties to even */
    double h = rint(height / (double)factor) * factor, w = rint(width / (double)factor) * factor;
    double pixels = (double)height * (double)width;
    if (h * w > (double)max_pixels) {
        double beta = sqrt(pixels / (double)max_pixels);
        h = fmax(factor, floor(height / beta / factor) * factor);
        w = fmax(factor, floor(width / beta / factor) * factor);
    } else if (h * w < (double)min_pixels) {
        double beta = sqrt((double)min_pixels / pixels);
        h = ceil(height * beta / factor) * factor;
        w = ceil(width * beta / factor) * factor;
    }
    if (h > INT32_MAX || w > INT32_MAX)
        return fail(E_CONFIG, "an image of %lld pixels or more has sides that are too long", (long long)min_pixels);
    *new_height = (int)h;
    *new_width = (int)w;
    return OK;
}

/* -- taps: which pixels a pixel of the result is made of, and their weights ---------------------------------------- */

/* The table of one pass: of pixel n, `taps` pixels from first[n] on. HOST */
struct taps {
    int taps;
    int32_t *first, *weight;         /* (n), (n, taps) */
};

/* Keys' cubic kernel with a = -1/2 */
static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/* The pixels [begin, end) that pixel n is made of, and its centre among them */
struct reach {
    int begin, end;
    double center;
};
static double stretch_of(int from, int to) { return fmax(1, from / (double)to); }
static struct reach reach_of(int n, int from, int to) {
    double center = (n + 0.5) * (from / (double)to), support = 2 * stretch_of(from, to);
    return (struct reach){max_int(0, (int)(center - support + 0.5)), min_int(from, (int)(center + support + 0.5)),
                          center};
}

static int taps_count(int from, int to) {
    int taps = 0;
    for (int n = 0; n < to; n++) {
        struct reach r = reach_of(n, from, to);
        taps = max_int(taps, r.end - r.begin);
    }
    return taps;
}

/* Weights are integers of 22 fractional bits, rounded half away from zero. What a pixel does not see of its `taps`
   has weight 0: its own begin later, where they would leave the side. scratch: (taps) */
static void fill_taps(struct taps *t, double *scratch, int from, int to) {
    double stretch = stretch_of(from, to);
    for (int n = 0; n < to; n++) {
        struct reach r = reach_of(n, from, to);
        double sum = 0;
        for (int k = r.begin; k < r.end; k++) {
            double w = bicubic((k - r.center + 0.5) * (1 / stretch));
            scratch[k - r.begin] = w;
            sum += w;
        }
        int32_t *weight = t->weight + (size_t)n * (size_t)t->taps;
        t->first[n] = min_int(r.begin, from - t->taps);
        memset(weight, 0, (size_t)t->taps * sizeof *weight);
        for (int k = r.begin; k < r.end; k++) {
            double w = scratch[k - r.begin] / sum * (1 << 22);
            weight[k - t->first[n]] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
        }
    }
}

/* -- one image after another --------------------------------------------------------------------------------------- */

/* Memory of a call: what an image is after one pass and after two, and its pixels, a pass's taps and the table on the
   device; where that is the host's memory, pixels, taps and table are there already. */
struct desk {
    const struct device *device;
    const struct patch_rule *rule;
    uint8_t *half, *whole;           /* after one pass, after two */
    void *pixels;                    /* NULL: of the host */
    int32_t *first, *weight;         /* likewise */
    float *table;                    /* likewise */
    struct taps host;
    double *scratch;
};

static void desk_clear(struct desk *d) {
    device_release(d->device, d->half);
    device_release(d->device, d->whole);
    device_release(d->device, d->pixels);
    device_release(d->device, d->first);
    device_release(d->device, d->weight);
    device_release(d->device, d->table);
    free(d->host.first);
    free(d->host.weight);
    free(d->scratch);
}

/* Whether the pass over columns is the first: where the height shrinks by more than twice what the width does, or the
   width stays. */
static int is_column_first(const struct image *m) {
    int64_t height = (int64_t)m->height - m->new_height, width = (int64_t)m->width - m->new_width;
    return !width || (height > 0 && height > 2 * width);
}

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

/* What the largest image needs of everything */
struct desk_size {
    size_t pixels, half, whole, first, weight, taps;
};

static void measure_pass(struct desk_size *s, int from, int to) {
    if (from == to) return;
    size_t taps = (size_t)taps_count(from, to);
    s->taps = max_size(s->taps, taps);
    s->first = max_size(s->first, (size_t)to);
    s->weight = max_size(s->weight, taps * (size_t)to);
}

static int desk_lay(struct desk *d, const struct image *images, int n) {
    struct desk_size s = {0};
    for (int i = 0; i < n; i++) {
        const struct image *m = &images[i];
        size_t height = (size_t)m->height, new_height = (size_t)m->new_height;
        size_t width = (size_t)m->width, new_width = (size_t)m->new_width;
        s.pixels = max_size(s.pixels, 3 * height * width);
        if (m->width != m->new_width || m->height != m->new_height)
            s.half = max_size(s.half, 3 * (is_column_first(m) ? new_height * width : height * new_width));
        if (m->width != m->new_width && m->height != m->new_height)
            s.whole = max_size(s.whole, 3 * new_height * new_width);
        measure_pass(&s, m->width, m->new_width);
        measure_pass(&s, m->height, m->new_height);
    }
    int away = !d->device->ops->host_memory;
    d->host.first = malloc(s.first * sizeof(int32_t) + 1);
    d->host.weight = malloc(s.weight * sizeof(int32_t) + 1);
    d->scratch = malloc(s.taps * sizeof(double) + 1);
    int ready = d->host.first && d->host.weight && d->scratch;
    ready = ready && (d->half = device_alloc(d->device, s.half + 1));
    ready = ready && (d->whole = device_alloc(d->device, s.whole + 1));
    ready = ready && (!away || (d->pixels = device_alloc(d->device, s.pixels + 1)));
    ready = ready && (!away || (d->first = device_alloc(d->device, s.first * sizeof(int32_t) + 1)));
    ready = ready && (!away || (d->weight = device_alloc(d->device, s.weight * sizeof(int32_t) + 1)));
    ready = ready && (!away || (d->table = device_alloc(d->device, 3 * 256 * sizeof(float))));
    if (!ready) return fail(E_MEMORY, "no memory to resize an image of %zu bytes to %zu", s.pixels, s.whole);
    return away ? device_upload(d->device, d->table, d->rule->table, 3 * 256 * sizeof(float)) : OK;
}

/* One pass: (H, from, C) -> (H, to, C) */
static int pass(struct desk *d, uint8_t *dst, const uint8_t *src, int H, int from, int to, int C) {
    d->host.taps = taps_count(from, to);
    fill_taps(&d->host, d->scratch, from, to);
    const int32_t *first = d->host.first, *weight = d->host.weight;
    if (d->first) {
        size_t n = (size_t)to, taps = (size_t)d->host.taps;
        TRY(device_upload(d->device, d->first, first, n * sizeof *first));
        TRY(device_upload(d->device, d->weight, weight, n * taps * sizeof *weight));
        first = d->first;
        weight = d->weight;
    }
    TRY(poll_interrupt());
    return op_resample(d->device, dst, src, first, weight, H, from, to, C, d->host.taps);
}

/* at: the pixels of an image, then those of the resized one */
static int resize(struct desk *d, const uint8_t **at, const struct image *m) {
    int height = m->height, width = m->width, columns = is_column_first(m);
    uint8_t *dst = d->half;
    for (int i = 0; i < 2; i++, columns = !columns) {
        if (columns ? height == m->new_height : width == m->new_width) continue;
        if (columns) TRY(pass(d, dst, *at, 1, height, m->new_height, 3 * width));
        else TRY(pass(d, dst, *at, height, width, m->new_width, 3));
        height = columns ? m->new_height : height;
        width = columns ? width : m->new_width;
        *at = dst;
        dst = d->whole;
    }
    return OK;
}

static int preprocess_one(struct desk *d, float *rows, const struct image *m) {
    const struct patch_rule *rule = d->rule;
    const uint8_t *at = m->pixels;
    if (d->pixels) {
        TRY(device_upload(d->device, d->pixels, at, 3 * (size_t)m->height * (size_t)m->width));
        at = d->pixels;
    }
    TRY(resize(d, &at, m));
    TRY(poll_interrupt());
    return op_patches(d->device, rows, at, d->table ? d->table : rule->table, rule->patch, rule->frames, rule->merge,
                      m->new_height, m->new_width);
}

int preprocess(const struct device *device, float *rows, const struct image *images, int n,
               const struct patch_rule *rule) {
    struct desk d = {.device = device, .rule = rule};
    int status = desk_lay(&d, images, n);
    for (int i = 0; !status && i < n; i++) {
        status = preprocess_one(&d, rows, &images[i]);
        rows += image_patches(&images[i], rule) * patch_numbers(rule);
    }
    desk_clear(&d);
    return status;
}
