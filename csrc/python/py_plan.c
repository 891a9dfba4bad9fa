/* grpo._core.plan: what a run will hold, before anything of it is allocated. The sizes come from the functions that
   allocate. */
#include "binding.h"
#include "py_spec.h"
#include "py_storage.h"

#include "net/store.h"
#include "run/rollout.h"
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
    struct spec spec;
    const struct ops *ops;
    int step_prompts, num_generations, prompt_length, max_new_tokens;      /* of the largest optimiser step */
    int token_budget, recompute;
    enum moment_dtype moments;
    enum master_dtype masters;
    int rollout_prompts, slots, store_rows;                                /* slots, store_rows 0: none */
    int train, reference, mixed;           /* a reference is there; and is mixed with the policy */
};

static int add(PyObject *list, const char *arena, size_t bytes) {
    PyObject *line = bytes ? Py_BuildValue("(sn)", arena, (Py_ssize_t)bytes) : NULL;
    int failed = bytes && (!line || PyList_Append(list, line));
    Py_XDECREF(line);
    return failed;
}

static int add_training(PyObject *list, const struct plan_request *r, int64_t step_rows) {
    struct trainer_sizes size = trainer_sizes(r->ops, &r->spec, VISION_FROZEN, r->moments, r->masters);
    return add(list, "gradients (float32)", size.grads) || add(list, "master bits beyond bfloat16", size.lower) ||
           add(list, moment_arena(r->moments), size.moments) ||
           add(list, "gradients of embedded tokens",
               (size_t)embed_room((int)step_rows) * embed_row_bytes(r->ops, &r->spec));
}

/* What the arenas are measured from */
struct plan_rows {
    int rows, head_rows;                   /* of the largest micro-batch */
    int64_t step_rows;
    struct rollout_size rollout;
};

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
                  {"store_rows", r->store_rows}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value < 0)
            return fail(E_CONFIG, "%s is %d, must not be negative", counts[i].name, counts[i].value);
    out->rollout = (struct rollout_size){r->slots, r->rollout_prompts, r->prompt_length, r->max_new_tokens};
    TRY(rollout_check_size(&out->rollout));
    return batch_limits_of(&out->rows, &out->head_rows, &out->step_rows, r->step_prompts, r->num_generations,
                           r->prompt_length, r->max_new_tokens, r->token_budget);
}

static int add_lines(PyObject *list, const struct plan_request *r) {
    const struct ops *ops = r->ops;
    const struct spec *s = &r->spec;
    struct plan_rows size;
    int status = measure(&size, r);
    if (status) return raise_status(status), -1;
    int rows = size.rows, head_rows = size.head_rows;
    size_t weights = weights_bytes(ops, s);
    if (add(list, "weights", weights)) return -1;
    if (r->reference &&
        (add(list, "reference weights", weights) ||
         add(list, "activations of the reference", activations_bytes(ops, s, STASH_NOTHING, rows, head_rows))))
        return -1;
    if (r->mixed && add(list, "mixing of the reference", 2 * spec_elements(s) * sizeof(float))) return -1;
    if (r->train && add_training(list, r, size.step_rows)) return -1;
    size_t row = store_row_bytes(ops, s, r->recompute ? STASH_INPUTS : STASH_ALL);
    if (add(list, "stored activations of rollouts", (size_t)r->store_rows * row)) return -1;
    /* one workspace serves both, in turn */
    size_t update = r->train ? activations_bytes(ops, s, r->recompute ? STASH_INPUTS : STASH_ALL, rows, head_rows) : 0;
    size_t generate = r->slots ? rollout_bytes(ops, s, &size.rollout) : 0;
    return update > generate ? add(list, "activations of the update", update)
                             : add(list, "KV cache of the rollout", generate);
}

PyDoc_STRVAR(plan_doc,
             "plan(*, spec, step_prompts, num_generations, prompt_length, max_new_tokens, token_budget, recompute, "
             "moment_dtype, master_dtype, rollout_prompts, slots, store_rows, train, reference, mixed, device)\n--\n\n"
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
                            "device",
                            NULL};
    struct plan_request r = {0};
    PyObject *spec;
    const char *device, *moment_dtype, *master_dtype;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$Oiiiiipssiiippps:plan", names, &spec, &r.step_prompts,
                                     &r.num_generations, &r.prompt_length, &r.max_new_tokens, &r.token_budget,
                                     &r.recompute, &moment_dtype, &master_dtype, &r.rollout_prompts, &r.slots,
                                     &r.store_rows, &r.train, &r.reference, &r.mixed, &device) ||
        parse_storage(&r.moments, &r.masters, moment_dtype, master_dtype))
        return NULL;
    PyObject *list = spec_parse(&r.spec, spec) ? NULL : PyList_New(0);
    int status = list ? ops_find(&r.ops, device) : OK;
    if (status) raise_status(status);
    if (list && (status || add_lines(list, &r))) Py_CLEAR(list);
    spec_free(&r.spec);
    return list;
}

static PyMethodDef functions[] = {
    {"plan", (PyCFunction)(void *)plan, METH_VARARGS | METH_KEYWORDS, plan_doc},
    {NULL, NULL, 0, NULL},
};

int add_plan(PyObject *module) { return PyModule_AddFunctions(module, functions); }
