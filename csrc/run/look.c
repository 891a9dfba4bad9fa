#include "run/look.h"

#include "base/base.h"

int heads_of_layers(int *heads, const struct spec *s, const int32_t *layers, int n) {
    *heads = 0;
    for (int i = 0; i < n; i++) {
        if (layers[i] < 0 || layers[i] >= s->n_layers || (i && layers[i] <= layers[i - 1]))
            return fail(E_CONFIG, "layers[%d] is %d; the model has layers 0 to %d, and these must ascend", i,
                        (int)layers[i], s->n_layers - 1);
        int found = s->layers[layers[i]].attention.heads;
        if (i && found != *heads)
            return fail(E_CONFIG, "layer %d has %d heads and layer %d has %d; look at them one by one",
                        (int)layers[i - 1], *heads, (int)layers[i], found);
        *heads = found;
    }
    return OK;
}

static int check_rows_of(const int32_t *rows, int n, int keys) {
    for (int i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= keys || (i && rows[i] <= rows[i - 1]))
            return fail(E_CONFIG, "rows[%d] is %d; there are rows 0 to %d, and these must ascend", i, (int)rows[i],
                        keys - 1);
    return OK;
}

int look(struct session *s, float *weights, const struct groups *g, const int32_t *layers, int n_layers,
         const int32_t *rows, int n) {
    const struct weights *w = s->weights;
    struct batch *b = &s->batch;
    struct micro_batch mb;
    int heads, prompt = 0, completion = 0, answer = ragged_length(&g->completions, 0);
    TRY(groups_check(g, &w->spec));
    TRY(pictures_have(g, 0));
    if (!answer) return fail(E_CONFIG, "the completion has no tokens");
    int keys = ragged_length(&g->prompts, 0) + answer - 1, all = round_up(keys, ROW_ALIGN);
    TRY(heads_of_layers(&heads, &w->spec, layers, n_layers));
    TRY(check_rows_of(rows, n, keys));
    if (!n || !n_layers) return OK;
    struct text_limits need = {.rows = all,
                               .head_rows = round_up(answer, ROW_ALIGN),
                               .slots = 1,
                               .segments = 2,
                               .positions = keys + 1,
                               .vectors = all_image_tokens(g)};
    TRY(session_reserve(s, &need, 0, (size_t)n * (size_t)heads * (size_t)keys * sizeof(float)));
    batch_next(&mb, &prompt, &completion, g, NULL, all);
    TRY(batch_pack(b, g, &mb));
    TRY(device_upload(&w->device, b->stored, rows, (size_t)n * sizeof *rows));
    return text_look(&s->acts, &b->rows,
                     &(struct look){.layers = layers,
                                    .rows = b->stored,
                                    .n_layers = n_layers,
                                    .R = n,
                                    .keys = keys,
                                    .p = (float *)(void *)s->rest,
                                    .weights = weights});
}
