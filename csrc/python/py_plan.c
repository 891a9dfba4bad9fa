/* grpo._core.plan: what a run will hold, before anything of it is allocated. The sizes come from the functions that
   allocate. */
#include "binding.h"
#include "py_spec.h"
#include "py_storage.h"

#include "base/base.h"
#include "net/store.h"
#include "run/rollout.h"
#include "run/see.h"
#include "train/trainer.h"

/* The place of `name` among n names; -1 with ValueError */
static int parse_choice(const char *option, const char *name, const char *const *names, int n) {
    for (int i = 0; i < n; i++)
        if (!strcmp(name, names[i])) return i;
    char known[80] = "";
    for (int i = 0; i < n; i++)
        sprintf(known + strlen(known), "%s'%s'", i == 0 ? "" : i < n - 1 ? ", " : " or ", names[i]);
    PyErr_Format(PyExc_ValueError, "%s is '%.40s', must be %s", option, name, known);
    return -1;
}

int parse_storage(enum moment_dtype *moments, enum master_dtype *masters, const char *moment_dtype,
                  const char *master_dtype) {
    int moment = parse_choice("moment_dtype", moment_dtype, moment_dtypes, MOMENT_DTYPES);
    int master = moment < 0 ? -1 : parse_choice("master_dtype", master_dtype, master_dtypes, MASTER_DTYPES);
    if (master < 0) return -1;
    *moments = (enum moment_dtype)moment;
    *masters = (enum master_dtype)master;
    return 0;
}

int parse_vision(enum vision_training *vision, const char *train_vision) {
    int i = parse_choice("train_vision", train_vision, vision_trainings, VISION_TRAININGS);
    if (i >= 0) *vision = (enum vision_training)i;
    return i < 0 ? -1 : 0;
}

struct plan_request {
    struct spec spec, tower;
    int has_tower;
    const struct ops *ops;
    int step_prompts, num_generations, prompt_length, max_new_tokens;      /* of the largest optimiser step */
    int token_budget, recompute;
    enum moment_dtype moments;
    enum master_dtype masters;
    int rollout_prompts, slots, store_rows;                                /* slots, store_rows 0: none */
    int train, reference, mixed;           /* a reference is there; and is mixed with the policy */
    int scored;                            /* the policy is asked for log-probs beside updates */
    /* what prompts show: tokens of the images of each, and how many these are; prompts whose images are on the host at
       a time; bytes of features that are kept there */
    int image_tokens, images, seen_prompts;
    long long image_cache;
    enum vision_training vision;
};

static int add(PyObject *list, const char *arena, size_t bytes) {
    PyObject *line = bytes ? Py_BuildValue("(sn)", arena, (Py_ssize_t)bytes) : NULL;
    int failed = bytes && (!line || PyList_Append(list, line));
    Py_XDECREF(line);
    return failed;
}

static struct trainer_sizes sizes_of(const struct plan_request *r) {
    struct trainer_sizes size = trainer_sizes(r->ops, &r->spec, r->vision, r->moments, r->masters), more;
    if (!r->has_tower || r->vision == VISION_FROZEN) return size;
    more = trainer_sizes(r->ops, &r->tower, r->vision, r->moments, r->masters);
    return (struct trainer_sizes){size.grads + more.grads, size.lower + more.lower, size.moments + more.moments};
}

static int add_training(PyObject *list, const struct plan_request *r, int64_t step_rows) {
    struct trainer_sizes size = sizes_of(r);
    return add(list, "gradients (float32)", size.grads) || add(list, "master bits beyond bfloat16", size.lower) ||
           add(list, moment_arena(r->moments), size.moments) ||
           add(list, "gradients of embedded tokens",
               (size_t)embed_room((int)step_rows) * embed_row_bytes(r->ops, &r->spec));
}

/* What the arenas are measured from */
struct plan_rows {
    int rows, head_rows; /* of the largest micro-batch */
    int64_t step_rows;
    struct rollout_size rollout;
    /* of the largest batch of images: of an update, of what comes before it */
    int tower_rows, seen_rows;
};

/* Rows of a tower: as many as images of these sizes can have with their padding. No prompt is shorter than its images,
   which is what bounds them in a micro-batch. */
static int measure_images(struct plan_rows *out, const struct plan_request *r) {
    if (r->vision != VISION_FROZEN && !r->has_tower)
        return fail(E_CONFIG, "train_vision is '%s', and this model has no vision tower", vision_trainings[r->vision]);
    if (r->image_tokens && !r->has_tower) return fail(E_CONFIG, "image_tokens of a model without a vision tower");
    if (r->images > r->image_tokens || !r->images != !r->image_tokens)
        return fail(E_CONFIG, "%d images of %d tokens together", r->images, r->image_tokens);
    if (!r->images) return OK;
    int64_t rows = rows_of_features(&r->tower, r->image_tokens, r->images);
    int64_t most = max_int(max_int(r->step_prompts, r->seen_prompts), r->rollout_prompts);
    if (rows > ROWS_MAX || most * rows > ROWS_MAX)
        return fail(E_CONFIG, "image_tokens is %d: images of %lld prompts have more than %d patches together",
                    r->image_tokens, (long long)most, ROWS_MAX);
    out->rollout.image_tokens = (int)((int64_t)r->rollout_prompts * r->image_tokens);
    out->tower_rows =
        tower_rows(&r->tower, (double)rows / r->image_tokens, (int)rows, r->step_prompts * rows, r->token_budget);
    out->seen_rows = min_int(max_int((int)rows, PATCH_BUDGET), (int)(r->seen_prompts * rows));
    return OK;
}

static int measure(struct plan_rows *out, const struct plan_request *r) {
    const struct {
        const char *name;
        int value;
    } counts[] = {{"step_prompts", r->step_prompts},
                  {"num_generations", r->num_generations},
                  {"prompt_length", r->prompt_length},
                  {"max_new_tokens", r->max_new_tokens},
                  {"rollout_prompts", r->rollout_prompts},
                  {"slots", r->slots},
                  {"store_rows", r->store_rows},
                  {"image_tokens", r->image_tokens},
                  {"images", r->images},
                  {"seen_prompts", r->seen_prompts}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value < 0)
            return fail(E_CONFIG, "%s is %d, must not be negative", counts[i].name, counts[i].value);
    if (r->image_cache < 0) return fail(E_CONFIG, "image_cache is %lld, must not be negative", r->image_cache);
    *out = (struct plan_rows){.rollout = {.slots = r->slots,
                                          .prompts = r->rollout_prompts,
                                          .prompt_length = r->prompt_length,
                                          .max_new_tokens = r->max_new_tokens,
                                          .forbids = r->has_tower}};
    TRY(rollout_check_size(&out->rollout));
    TRY(measure_images(out, r));
    return batch_limits_of(&out->rows, &out->head_rows, &out->step_rows, r->step_prompts, r->num_generations,
                           r->prompt_length, r->max_new_tokens, r->token_budget);
}

/* Features of n tokens in device memory */
static size_t vectors_of(const struct plan_request *r, int64_t n) { return (size_t)n * vector_bytes(r->ops, &r->spec); }

/* Features that a batch of these rows has at most, of so many prompts */
static int64_t batch_vectors(const struct plan_request *r, int prompts, int rows) {
    int64_t all = (int64_t)prompts * r->image_tokens;
    return all < rows ? all : rows;
}

static size_t seen_bytes(const struct plan_request *r, const struct plan_rows *size) {
    return size->seen_rows ? see_bytes(r->ops, &r->tower, size->seen_rows) : 0;
}

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

/* Host bytes of what a tower makes of the images of all prompts seen together */
static size_t host_features(const struct plan_request *r) {
    size_t tokens = (size_t)r->seen_prompts * (size_t)r->image_tokens;
    return tokens * (size_t)feature_levels(&r->tower) * (size_t)r->tower.vision.out * (size_t)r->ops->real_size;
}

/* Its tower is asked where its weights are not the policy's, or where features are not kept until it is their turn. */
static int reference_sees(const struct plan_request *r) {
    return r->vision != VISION_FROZEN || host_features(r) > (unsigned long long)r->image_cache;
}

static int add_reference(PyObject *list, const struct plan_request *r, const struct plan_rows *size, size_t weights) {
    size_t workspace = activations_bytes(r->ops, &r->spec, STASH_NOTHING, size->rows, size->head_rows);
    size_t seen = reference_sees(r) ? seen_bytes(r, size) : 0;
    size_t vectors = vectors_of(r, batch_vectors(r, r->seen_prompts, size->rows));
    size_t elements = spec_elements(&r->spec) + (r->vision != VISION_FROZEN ? spec_elements(&r->tower) : 0);
    if (r->reference && (add(list, "reference weights", weights) ||
                         add(list, "activations of the reference", max_size(workspace, seen)) ||
                         add(list, "features in the reference", vectors)))
        return -1;
    return r->mixed ? add(list, "mixing of the reference", 2 * elements * sizeof(float)) : 0;
}

/* Batches have features of their own, in device memory beside the workspace. */
static int add_vectors(PyObject *list, const struct plan_request *r, const struct plan_rows *size) {
    int64_t update = batch_vectors(r, r->step_prompts, size->rows);
    int64_t session = r->slots ? rollout_vectors(r->ops, &r->spec, &size->rollout) : 0;
    if (r->scored && update > session) session = update;
    return (r->train && add(list, "features of a micro-batch", vectors_of(r, update))) ||
           add(list, "features of prompts", vectors_of(r, session));
}

/* One workspace serves rollouts, updates and the tower that sees for them, in turn. */
static int add_workspace(PyObject *list, const struct plan_request *r, const struct plan_rows *size) {
    enum stashing what = r->recompute ? STASH_INPUTS : STASH_ALL;
    int trained = r->train && r->vision != VISION_FROZEN && size->tower_rows;
    size_t update = r->train ? activations_bytes(r->ops, &r->spec, what, size->rows, size->head_rows) : 0;
    enum stashing of_tower = tower_stashing(r->vision, r->recompute);
    size_t tower = trained ? tower_bytes(r->ops, &r->tower, of_tower, size->tower_rows) : 0;
    size_t generate = r->slots ? rollout_bytes(r->ops, &r->spec, &size->rollout) : 0, seen = seen_bytes(r, size);
    if (update + tower > max_size(generate, seen))
        return add(list, "activations of the update", update) || add(list, "activations of the tower", tower);
    return seen > generate ? add(list, "activations of the tower", seen)
                           : add(list, "KV cache of the rollout", generate);
}

/* Host memory: of the images that are seen together what a tower reads and what it makes of it, and of those before
   them what is kept. */
static int add_host(PyObject *list, const struct plan_request *r) {
    if (!r->images) return 0;
    size_t patches = (size_t)r->seen_prompts * (size_t)r->image_tokens * (size_t)cell_patches(&r->tower);
    /* a reference whose tower stands still beside one that is trained makes features of its own */
    size_t towers = r->reference && r->vision != VISION_FROZEN ? 2 : 1;
    return add(list, "pixels of images", patches * (size_t)patch_columns(&r->tower) * sizeof(float)) ||
           add(list, "features of images", towers * host_features(r)) ||
           add(list, "kept features of images", (size_t)r->image_cache);
}

static int add_lines(PyObject *list, const struct plan_request *r) {
    const struct ops *ops = r->ops;
    const struct spec *s = &r->spec;
    struct plan_rows size;
    int status = measure(&size, r);
    if (status) return raise_status(status), -1;
    size_t weights = weights_bytes(ops, s) + (r->has_tower ? weights_bytes(ops, &r->tower) : 0);
    size_t row = store_row_bytes(ops, s, r->recompute ? STASH_INPUTS : STASH_ALL);
    return add(list, "weights", weights) || add_reference(list, r, &size, weights) ||
           (r->train && add_training(list, r, size.step_rows)) ||
           add(list, "stored activations of rollouts", (size_t)r->store_rows * row) || add_vectors(list, r, &size) ||
           add_workspace(list, r, &size) || add_host(list, r);
}

PyDoc_STRVAR(plan_doc,
             "plan(*, spec, step_prompts, num_generations, prompt_length, max_new_tokens, token_budget, recompute, "
             "moment_dtype, master_dtype, rollout_prompts, slots, store_rows, train, reference, mixed, scored, "
             "train_vision, image_tokens, images, seen_prompts, image_cache, device)\n--\n\n"
             "[(arena, bytes)] that a run with these settings will hold.");
static PyObject *plan(PyObject *module, PyObject *args, PyObject *kwargs) {
    (void)module;
    static char *names[] = {"spec",
                            "step_prompts",
                            "num_generations",
                            "prompt_length",
                            "max_new_tokens",
                            "token_budget",
                            "recompute",
                            "moment_dtype",
                            "master_dtype",
                            "rollout_prompts",
                            "slots",
                            "store_rows",
                            "train",
                            "reference",
                            "mixed",
                            "scored",
                            "train_vision",
                            "image_tokens",
                            "images",
                            "seen_prompts",
                            "image_cache",
                            "device",
                            NULL};
    struct plan_request r = {0};
    PyObject *spec;
    const char *device, *moment_dtype, *master_dtype, *train_vision;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OiiiiipssiiippppsiiiLs:plan", names, &spec, &r.step_prompts,
                                     &r.num_generations, &r.prompt_length, &r.max_new_tokens, &r.token_budget,
                                     &r.recompute, &moment_dtype, &master_dtype, &r.rollout_prompts, &r.slots,
                                     &r.store_rows, &r.train, &r.reference, &r.mixed, &r.scored, &train_vision,
                                     &r.image_tokens, &r.images, &r.seen_prompts, &r.image_cache, &device) ||
        parse_storage(&r.moments, &r.masters, moment_dtype, master_dtype) || parse_vision(&r.vision, train_vision))
        return NULL;
    int failed = spec_parse(&r.spec, spec) || tower_parse(&r.tower, &r.has_tower, spec);
    r.spec.levels = failed || !r.has_tower ? 0 : feature_levels(&r.tower);
    PyObject *list = failed ? NULL : PyList_New(0);
    int status = list ? ops_find(&r.ops, device) : OK;
    if (status) raise_status(status);
    if (list && (status || add_lines(list, &r))) Py_CLEAR(list);
    spec_free(&r.spec);
    spec_free(&r.tower);
    return list;
}

static PyMethodDef functions[] = {
    {"plan", (PyCFunction)(void *)plan, METH_VARARGS | METH_KEYWORDS, plan_doc},
    {NULL, NULL, 0, NULL},
};

int add_plan(PyObject *module) { return PyModule_AddFunctions(module, functions); }
