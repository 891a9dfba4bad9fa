/* Losses, advantages and log-softmax on host arrays. The table of loss options is here: name, default, field. */
#include "binding.h"

#include <math.h>

#include "py_loss.h"
#include "loss/advantage.h"
#include "loss/logits.h"

/* ---- options --------------------------------------------------------------------------------------------------- */

enum kind { NUMBER, OPTIONAL_NUMBER, INTEGER, FLAG, CHOICE, OPTIONAL_CHOICE };
static const char *const kind_names[] = {
    [NUMBER] = "number", [OPTIONAL_NUMBER] = "number or None", [INTEGER] = "integer", [FLAG] = "flag",
    [CHOICE] = "choice", [OPTIONAL_CHOICE] = "choice or None",
};
struct option {
    const char *name;
    enum kind kind;
    size_t offset;                       /* of a double (numbers) or an int in struct loss_config */
    double standard;                     /* the default; for OPTIONAL_*, what None stands for */
    const char *const *choices;
};

#define OPTION(name, kind, standard, choices) {#name, kind, offsetof(struct loss_config, name), standard, choices}
static const struct option options[] = {
    OPTION(loss_type, CHOICE, LOSS_DAPO, loss_type_names),
    OPTION(aggregation, OPTIONAL_CHOICE, -1, loss_aggregation_names),
    OPTION(importance_sampling_level, CHOICE, LEVEL_TOKEN, loss_level_names),
    OPTION(max_completion_length, INTEGER, 512, NULL),
    OPTION(epsilon, NUMBER, 0.2, NULL),
    OPTION(epsilon_high, OPTIONAL_NUMBER, NAN, NULL),
    OPTION(delta, OPTIONAL_NUMBER, INFINITY, NULL),
    OPTION(cispo_two_sided, FLAG, 0, NULL),
    OPTION(beta, NUMBER, 0, NULL),
    OPTION(kl_estimator, CHOICE, KL_K3, kl_estimator_names),
    OPTION(use_bias_correction_kl, FLAG, 1, NULL),
    OPTION(sapo_temperature_pos, NUMBER, 1.0, NULL),
    OPTION(sapo_temperature_neg, NUMBER, 1.05, NULL),
    OPTION(vespo_k_pos, NUMBER, 2, NULL),
    OPTION(vespo_lambda_pos, NUMBER, 3, NULL),
    OPTION(vespo_k_neg, NUMBER, 3, NULL),
    OPTION(vespo_lambda_neg, NUMBER, 2, NULL),
    OPTION(top_entropy_quantile, NUMBER, 1, NULL),
    OPTION(off_policy_mask_threshold, OPTIONAL_NUMBER, INFINITY, NULL),
    OPTION(entropy_coef, NUMBER, 0, NULL),
    OPTION(use_adaptive_entropy, FLAG, 0, NULL),
    OPTION(entropy_coef_min, NUMBER, 0, NULL),
    OPTION(entropy_coef_max, NUMBER, 1, NULL),
    OPTION(entropy_coef_delta, NUMBER, 0.005, NULL),
    OPTION(entropy_target, NUMBER, 0.2, NULL),
};
#undef OPTION
enum { N_OPTIONS = sizeof options / sizeof *options };

static int config_error(const char *format, const char *name, PyObject *value) {
    PyObject *text = PyObject_Repr(value);
    if (!text) return -1;
    const char *utf8 = PyUnicode_AsUTF8(text);
    if (utf8) raise_status(fail(E_CONFIG, format, name, utf8));
    Py_DECREF(text);
    return -1;
}

static int number_arg(double *out, const char *name, PyObject *value) {
    *out = PyFloat_AsDouble(value);
    if (*out == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return config_error("%s must be a number, not %s", name, value);
    }
    return isfinite(*out) ? 0 : config_error("%s must be finite, not %s", name, value);
}

static int choice_arg(int *out, const char *name, const char *const *choices, PyObject *value) {
    const char *text = PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    PyErr_Clear();
    for (*out = 0; text && choices[*out]; ++*out)
        if (!strcmp(text, choices[*out])) return 0;
    char allowed[256] = "";
    for (size_t i = 0, used = 0; choices[i] && used < sizeof allowed; i++)
        used += (size_t)snprintf(allowed + used, sizeof allowed - used, "%s'%s'", i ? ", " : "", choices[i]);
    PyObject *label = PyUnicode_FromFormat("%s must be one of %s", name, allowed);
    if (!label) return -1;
    config_error("%s, not %s", PyUnicode_AsUTF8(label), value);
    Py_DECREF(label);
    return -1;
}

static int integer_arg(int *out, const char *name, PyObject *value) {
    long number = PyLong_AsLong(value);
    if ((number == -1 && PyErr_Occurred()) || number != (int)number) {
        PyErr_Clear();
        return config_error("%s must be an integer, not %s", name, value);
    }
    *out = (int)number;
    return 0;
}

static int flag_arg(int *out, const char *name, PyObject *value) {
    if (value != Py_True && value != Py_False) return config_error("%s must be True or False, not %s", name, value);
    *out = value == Py_True;
    return 0;
}

/* Sets one option of c; NULL or, where it may be, None: the default. */
static int option_parse(struct loss_config *c, const struct option *o, PyObject *value) {
    char *field = (char *)c + o->offset;
    int optional = o->kind == OPTIONAL_NUMBER || o->kind == OPTIONAL_CHOICE;
    int real = o->kind == NUMBER || o->kind == OPTIONAL_NUMBER;
    if (!value || (optional && value == Py_None)) {
        if (real) *(double *)field = o->standard;
        else *(int *)field = (int)o->standard;
        return 0;
    }
    if (real) return number_arg((double *)field, o->name, value);
    if (o->kind == INTEGER) return integer_arg((int *)field, o->name, value);
    if (o->kind == FLAG) return flag_arg((int *)field, o->name, value);
    return choice_arg((int *)field, o->name, o->choices, value);
}

static int check_keys(PyObject *dict, const char *what, int (*known)(const char *)) {
    PyObject *key;
    Py_ssize_t position = 0;
    if (!PyDict_Check(dict)) {
        PyErr_Format(PyExc_TypeError, "%s must be a dict, not %.100s", what, Py_TYPE(dict)->tp_name);
        return -1;
    }
    while (PyDict_Next(dict, &position, &key, NULL)) {
        const char *name = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : NULL;
        PyErr_Clear();
        if (!name || !known(name)) return config_error("%s has no option %s", what, key);
    }
    return 0;
}

static int is_loss_option(const char *name) {
    for (int i = 0; i < N_OPTIONS; i++)
        if (!strcmp(name, options[i].name)) return 1;
    return 0;
}

int loss_config_parse(struct loss_config *c, PyObject *dict) {
    if (check_keys(dict, "loss", is_loss_option)) return -1;
    for (int i = 0; i < N_OPTIONS; i++)
        if (option_parse(c, &options[i], PyDict_GetItemString(dict, options[i].name))) return -1;
    int status = loss_config_finish(c);
    if (status) raise_status(status);
    return status ? -1 : 0;
}

static const struct {
    const char *name;
    size_t offset;
    int required;
} normalizer_fields[] = {
    {"tokens", offsetof(struct loss_normalizer, tokens), 1},
    {"sequences", offsetof(struct loss_normalizer, sequences), 1},
    {"entropy_threshold", offsetof(struct loss_normalizer, entropy_threshold), 0},
    {"entropy_tokens", offsetof(struct loss_normalizer, entropy_tokens), 0},
    {"entropy_coef", offsetof(struct loss_normalizer, entropy_coef), 0},
};
enum { N_NORMALIZER_FIELDS = sizeof normalizer_fields / sizeof *normalizer_fields };

static int is_normalizer_field(const char *name) {
    for (int i = 0; i < N_NORMALIZER_FIELDS; i++)
        if (!strcmp(name, normalizer_fields[i].name)) return 1;
    return 0;
}

int loss_normalizer_parse(struct loss_normalizer *n, PyObject *dict) {
    if (check_keys(dict, "normalizer", is_normalizer_field)) return -1;
    for (int i = 0; i < N_NORMALIZER_FIELDS; i++) {
        double *field = (double *)((char *)n + normalizer_fields[i].offset);
        PyObject *value = PyDict_GetItemString(dict, normalizer_fields[i].name);
        *field = NAN;
        if (value && number_arg(field, normalizer_fields[i].name, value)) return -1;
        if (!value && normalizer_fields[i].required) {
            raise_status(fail(E_CONFIG, "the normalizer lacks %s", normalizer_fields[i].name));
            return -1;
        }
    }
    return 0;
}

/* ---- metrics --------------------------------------------------------------------------------------------------- */

static int put(PyObject *dict, const char *name, double value) {
    PyObject *number = PyFloat_FromDouble(value);
    int status = number ? PyDict_SetItemString(dict, name, number) : -1;
    Py_XDECREF(number);
    return status;
}

PyObject *loss_metrics_dict(const struct loss_metrics *m) {
    PyObject *d = PyDict_New();
    if (!d) return NULL;
    const struct {
        const char *name;
        struct loss_mean mean;
    } means[] = {
        {"kl", m->kl},
        {"entropy", m->entropy},
        {"clip_ratio/low_mean", m->clip_low},
        {"clip_ratio/high_mean", m->clip_high},
        {"clip_ratio/region_mean", {m->clip_low.sum + m->clip_high.sum, m->clip_low.count}},
        {"clip_ratio/low_min", {m->clip_low_min, m->clip_low.count > 0}},
        {"clip_ratio/high_max", {m->clip_high_max, m->clip_high.count > 0}},
        {"cispo_clip_ratio", m->cispo_clip},
        {"vespo/phi_seq_mean", m->vespo_phi},
        {"off_policy_mask/dropped", m->off_policy_dropped},
        {"sampling/importance_sampling_ratio/mean", m->ratio},
        {"sampling/importance_sampling_ratio/min", {m->ratio_min, m->ratio.count > 0}},
        {"sampling/importance_sampling_ratio/max", {m->ratio_max, m->ratio.count > 0}},
        {"sampling/sampling_logp_difference/mean", m->logp_difference},
        {"sampling/sampling_logp_difference/max", {m->logp_difference_max, m->logp_difference.count > 0}},
        {"policy_loss", {m->policy_loss, 1}},
        {"loss/clamped_exponents", {m->clamped_exponents, 1}},
    };
    int status = 0;
    for (size_t i = 0; !status && i < sizeof means / sizeof *means; i++)
        if (means[i].mean.count > 0) status = put(d, means[i].name, means[i].mean.sum / means[i].mean.count);
    if (status) Py_CLEAR(d);
    return d;
}

/* ---- functions ------------------------------------------------------------------------------------------------- */

/* The default, as Python sees it: None where an option may be left open. */
static PyObject *option_default(const struct option *o) {
    switch (o->kind) {
    case NUMBER: return PyFloat_FromDouble(o->standard);
    case INTEGER: return PyLong_FromDouble(o->standard);
    case FLAG: return PyBool_FromLong((long)o->standard);
    case CHOICE: return PyUnicode_FromString(o->choices[(int)o->standard]);
    default: return Py_NewRef(Py_None);
    }
}

/* A tuple of the names that an option may have; empty where it is no choice. */
static PyObject *option_choices(const struct option *o) {
    Py_ssize_t count = 0;
    while (o->choices && o->choices[count]) count++;
    PyObject *names = PyTuple_New(count);
    for (Py_ssize_t i = 0; names && i < count; i++) {
        PyObject *name = PyUnicode_FromString(o->choices[i]);
        if (name) PyTuple_SET_ITEM(names, i, name);
        else Py_CLEAR(names);
    }
    return names;
}

PyDoc_STRVAR(loss_options_doc,
             "loss_options($module, /)\n--\n\n{name: (kind, default, choices)} of every loss option.");
static PyObject *loss_options(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *d = PyDict_New();
    for (int i = 0; d && i < N_OPTIONS; i++) {
        PyObject *standard = option_default(&options[i]), *choices = option_choices(&options[i]);
        PyObject *entry =
            standard && choices ? Py_BuildValue("(sOO)", kind_names[options[i].kind], standard, choices) : NULL;
        if (!entry || PyDict_SetItemString(d, options[i].name, entry)) Py_CLEAR(d);
        Py_XDECREF(entry);
        Py_XDECREF(standard);
        Py_XDECREF(choices);
    }
    return d;
}

PyDoc_STRVAR(loss_defaults_doc, "loss_defaults($module, /)\n--\n\nEvery loss option and its default.");
static PyObject *loss_defaults(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *d = PyDict_New();
    for (int i = 0; d && i < N_OPTIONS; i++) {
        PyObject *value = option_default(&options[i]);
        if (!value || PyDict_SetItemString(d, options[i].name, value)) Py_CLEAR(d);
        Py_XDECREF(value);
    }
    return d;
}

/* The number of tokens in all, or -1 with an exception. */
static npy_intp sum_lengths(PyArrayObject *lengths) {
    npy_intp total = 0;
    for (npy_intp i = 0; i < PyArray_SIZE(lengths); i++) {
        if (DATA(int32_t, lengths)[i] < 0) {
            PyErr_Format(PyExc_ValueError, "length %zd is negative", (Py_ssize_t)i);
            return -1;
        }
        total += DATA(int32_t, lengths)[i];
    }
    if (total <= INT32_MAX) return total;
    PyErr_SetString(PyExc_ValueError, "lengths add up to more than an int holds");
    return -1;
}

static int check_size(PyArrayObject *array, const char *name, npy_intp size) {
    if (PyArray_SIZE(array) == size) return 0;
    Py_ssize_t want = size, got = PyArray_SIZE(array);
    PyErr_Format(PyExc_ValueError, "%s must hold %zd entries, not %zd", name, want, got);
    return -1;
}

enum { LENGTHS, LOGPS, OLD_LOGPS, ADVANTAGES, MASK, REF_LOGPS, ENTROPIES, N_ARRAYS };
static const struct {
    const char *name;
    int type, optional;
} loss_arrays[N_ARRAYS] = {
    [LENGTHS] = {"lengths", NPY_INT32, 0},     [LOGPS] = {"logps", NPY_FLOAT, 0},
    [OLD_LOGPS] = {"old_logps", NPY_FLOAT, 0}, [ADVANTAGES] = {"advantages", NPY_FLOAT, 0},
    [MASK] = {"mask", NPY_UINT8, 0},           [REF_LOGPS] = {"ref_logps", NPY_FLOAT, 1},
    [ENTROPIES] = {"entropies", NPY_FLOAT, 1},
};

/* array[i] = new reference, or NULL for None; 0, or -1 with an exception */
static int loss_arrays_parse(PyArrayObject **array, PyObject *const *object) {
    npy_intp n_tokens = 0;
    for (int i = 0; i < N_ARRAYS; i++) {
        const char *name = loss_arrays[i].name;
        if (loss_arrays[i].optional && object[i] == Py_None) continue;
        array[i] = array_arg(object[i], loss_arrays[i].type, 1, name);
        if (!array[i]) return -1;
        if (i == LENGTHS) n_tokens = sum_lengths(array[i]);
        else if (check_size(array[i], name, i == ADVANTAGES ? PyArray_SIZE(array[LENGTHS]) : n_tokens)) return -1;
        if (n_tokens < 0) return -1;
    }
    return 0;
}

/* (loss, coef, ecoef, metrics) */
static PyObject *evaluate(PyArrayObject *const *array, const struct loss_config *config,
                          const struct loss_normalizer *norm) {
    npy_intp n_tokens = PyArray_SIZE(array[LOGPS]);
    PyObject *coef = array_new(NPY_FLOAT, 1, &n_tokens), *ecoef = array_new(NPY_FLOAT, 1, &n_tokens), *result = NULL;
    if (coef && ecoef) {
        struct loss_metrics metrics;
        loss_metrics_init(&metrics);
        double loss = 0;
        int status;
        float *dlogp = DATA(float, (PyArrayObject *)coef), *dentropy = DATA(float, (PyArrayObject *)ecoef);
        const float *ref_logp = array[REF_LOGPS] ? DATA(float, array[REF_LOGPS]) : NULL;
        const float *entropy = array[ENTROPIES] ? DATA(float, array[ENTROPIES]) : NULL;
        Py_BEGIN_ALLOW_THREADS status =
            loss_eval(&loss, dlogp, dentropy, &metrics, config, norm, (int)PyArray_SIZE(array[LENGTHS]),
                      DATA(int32_t, array[LENGTHS]), DATA(float, array[LOGPS]), DATA(float, array[OLD_LOGPS]), ref_logp,
                      entropy, DATA(float, array[ADVANTAGES]), DATA(uint8_t, array[MASK]));
        Py_END_ALLOW_THREADS if (status) raise_status(status);
        else result = Py_BuildValue("(dOON)", loss, coef, ecoef, loss_metrics_dict(&metrics)); }
    Py_XDECREF(coef);
    Py_XDECREF(ecoef);
    return result;
}

PyDoc_STRVAR(grpo_loss_doc, "grpo_loss($module, logps, old_logps, advantages, mask, ref_logps, entropies, lengths, "
                            "loss, normalizer, /)\n--\n\n(loss, dloss/dlogp, dloss/dentropy, metrics) of flat "
                            "completions; see grpo.ops.grpo_loss.");
static PyObject *grpo_loss(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *object[N_ARRAYS], *loss, *normalizer, *result = NULL;
    if (!PyArg_ParseTuple(args, "OOOOOOOOO:grpo_loss", &object[LOGPS], &object[OLD_LOGPS], &object[ADVANTAGES],
                          &object[MASK], &object[REF_LOGPS], &object[ENTROPIES], &object[LENGTHS], &loss, &normalizer))
        return NULL;
    struct loss_config config;
    struct loss_normalizer norm;
    if (loss_config_parse(&config, loss) || loss_normalizer_parse(&norm, normalizer)) return NULL;
    PyArrayObject *array[N_ARRAYS] = {NULL};
    if (!loss_arrays_parse(array, object)) result = evaluate(array, &config, &norm);
    for (int i = 0; i < N_ARRAYS; i++) Py_XDECREF(array[i]);
    return result;
}

PyDoc_STRVAR(adapt_entropy_coef_doc, "adapt_entropy_coef($module, coef, entropy, loss, /)\n--\n\n(new coefficient, "
                                     "coefficient of the next step); see grpo.ops.adapt_entropy_coef.");
static PyObject *adapt_entropy_coef(PyObject *module, PyObject *args) {
    (void)module;
    double coef, entropy;
    PyObject *loss;
    struct loss_config config;
    if (!PyArg_ParseTuple(args, "ddO:adapt_entropy_coef", &coef, &entropy, &loss)) return NULL;
    if (loss_config_parse(&config, loss)) return NULL;
    double applied = loss_adapt_entropy(&coef, entropy, &config);
    return Py_BuildValue("(dd)", coef, applied);
}

PyDoc_STRVAR(group_advantages_doc, "group_advantages($module, rewards, weights, sizes, scale_rewards, "
                                   "multi_objective_aggregation, /)\n--\n\nAdvantages (n) float32 of rewards "
                                   "(n, n_functions) float64; see grpo.ops.group_advantages.");
static PyObject *py_group_advantages(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *object[5], *advantage = NULL;
    int scale, aggregation;
    if (!PyArg_ParseTuple(args, "OOOOO:group_advantages", &object[0], &object[1], &object[2], &object[3], &object[4]))
        return NULL;
    if (choice_arg(&scale, "scale_rewards", advantage_scale_names, object[3])) return NULL;
    if (choice_arg(&aggregation, "multi_objective_aggregation", reward_aggregation_names, object[4])) return NULL;
    PyArrayObject *rewards = array_arg(object[0], NPY_DOUBLE, 2, "rewards"), *weights = NULL, *sizes = NULL;
    if (!rewards || !(weights = array_arg(object[1], NPY_DOUBLE, 1, "weights"))) goto done;
    if (!(sizes = array_arg(object[2], NPY_INT32, 1, "sizes"))) goto done;
    npy_intp n = sum_lengths(sizes), n_functions = PyArray_SIZE(weights);
    if (n < 0 || check_size(rewards, "rewards", n * n_functions)) goto done;
    if (!(advantage = array_new(NPY_FLOAT, 1, &n))) goto done;
    int status = group_advantages(DATA(float, (PyArrayObject *)advantage), DATA(double, rewards), DATA(double, weights),
                                  DATA(int32_t, sizes), (int)PyArray_SIZE(sizes), (int)n_functions, scale, aggregation);
    if (status) {
        raise_status(status);
        Py_CLEAR(advantage);
    }
done:
    Py_XDECREF(rewards);
    Py_XDECREF(weights);
    Py_XDECREF(sizes);
    return advantage;
}

PyDoc_STRVAR(selective_log_softmax_doc, "selective_log_softmax($module, logits, ids, temperature, /)\n--\n\n(log-probs "
                                        "of ids, entropies) of logits (N, V); see grpo.ops.selective_log_softmax.");
static PyObject *py_selective_log_softmax(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *object[2], *logp = NULL, *entropy = NULL, *result = NULL;
    double temperature;
    if (!PyArg_ParseTuple(args, "OOd:selective_log_softmax", &object[0], &object[1], &temperature)) return NULL;
    PyArrayObject *logits = array_arg(object[0], NPY_FLOAT, 2, "logits"), *ids = NULL;
    if (!logits || !(ids = array_arg(object[1], NPY_INT32, 1, "ids"))) goto done;
    npy_intp n = PyArray_DIM(logits, 0), V = PyArray_DIM(logits, 1);
    if (check_size(ids, "ids", n)) goto done;
    logp = array_new(NPY_FLOAT, 1, &n);
    entropy = array_new(NPY_FLOAT, 1, &n);
    if (!logp || !entropy) goto done;
    float *out_logp = DATA(float, (PyArrayObject *)logp), *out_entropy = DATA(float, (PyArrayObject *)entropy);
    int status;
    Py_BEGIN_ALLOW_THREADS status = selective_log_softmax(out_logp, out_entropy, DATA(float, logits),
                                                          DATA(int32_t, ids), temperature, (int)n, (int)V);
    Py_END_ALLOW_THREADS if (status) raise_status(status);
    else result = Py_BuildValue("(OO)", logp, entropy);
done:
    Py_XDECREF(logits);
    Py_XDECREF(ids);
    Py_XDECREF(logp);
    Py_XDECREF(entropy);
    return result;
}

static PyMethodDef methods[] = {
    {"loss_options", loss_options, METH_NOARGS, loss_options_doc},
    {"loss_defaults", loss_defaults, METH_NOARGS, loss_defaults_doc},
    {"grpo_loss", grpo_loss, METH_VARARGS, grpo_loss_doc},
    {"adapt_entropy_coef", adapt_entropy_coef, METH_VARARGS, adapt_entropy_coef_doc},
    {"group_advantages", py_group_advantages, METH_VARARGS, group_advantages_doc},
    {"selective_log_softmax", py_selective_log_softmax, METH_VARARGS, selective_log_softmax_doc},
    {NULL, NULL, 0, NULL},
};

int add_loss(PyObject *module) { return PyModule_AddFunctions(module, methods); }
