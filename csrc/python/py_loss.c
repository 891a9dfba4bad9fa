/* Losses, advantages and log-softmax on host arrays. The table of loss options is here: name, default, field. */
#include "binding.h"

#include <math.h>

#include "py_loss.h"
#include "rl/advantage.h"
#include "rl/logits.h"

/* ---- options --------------------------------------------------------------------------------------------------- */

enum kind { NUMBER, OPTIONAL_NUMBER, INTEGER, FLAG, CHOICE, OPTIONAL_CHOICE };
struct option {
    const char *name;
    enum kind kind;
    size_t offset;                       /* of a double (numbers) or an int in struct loss_config */
    double standard;                     /* the default; for OPTIONAL_*, what None stands for */
    const char *const *choices;
};

#define FIELD(name) #name
#define AT(name) offsetof(struct loss_config, name)
static const struct option options[] = {
    {FIELD(loss_type), CHOICE, AT(loss_type), LOSS_DAPO, loss_type_names},
    {FIELD(aggregation), OPTIONAL_CHOICE, AT(aggregation), -1, loss_aggregation_names},
    {FIELD(importance_sampling_level), CHOICE, AT(importance_sampling_level), LEVEL_TOKEN, loss_level_names},
    {FIELD(max_completion_length), INTEGER, AT(max_completion_length), 512, NULL},
    {FIELD(epsilon), NUMBER, AT(epsilon), 0.2, NULL},
    {FIELD(epsilon_high), OPTIONAL_NUMBER, AT(epsilon_high), NAN, NULL},
    {FIELD(delta), OPTIONAL_NUMBER, AT(delta), INFINITY, NULL},
    {FIELD(cispo_two_sided), FLAG, AT(cispo_two_sided), 0, NULL},
    {FIELD(beta), NUMBER, AT(beta), 0, NULL},
    {FIELD(kl_estimator), CHOICE, AT(kl_estimator), KL_K3, kl_estimator_names},
    {FIELD(use_bias_correction_kl), FLAG, AT(use_bias_correction_kl), 1, NULL},
    {FIELD(sapo_temperature_pos), NUMBER, AT(sapo_temperature_pos), 1.0, NULL},
    {FIELD(sapo_temperature_neg), NUMBER, AT(sapo_temperature_neg), 1.05, NULL},
    {FIELD(vespo_k_pos), NUMBER, AT(vespo_k_pos), 2, NULL},
    {FIELD(vespo_lambda_pos), NUMBER, AT(vespo_lambda_pos), 3, NULL},
    {FIELD(vespo_k_neg), NUMBER, AT(vespo_k_neg), 3, NULL},
    {FIELD(vespo_lambda_neg), NUMBER, AT(vespo_lambda_neg), 2, NULL},
    {FIELD(top_entropy_quantile), NUMBER, AT(top_entropy_quantile), 1, NULL},
    {FIELD(off_policy_mask_threshold), OPTIONAL_NUMBER, AT(off_policy_mask_threshold), INFINITY, NULL},
    {FIELD(entropy_coef), NUMBER, AT(entropy_coef), 0, NULL},
    {FIELD(use_adaptive_entropy), FLAG, AT(use_adaptive_entropy), 0, NULL},
    {FIELD(entropy_coef_min), NUMBER, AT(entropy_coef_min), 0, NULL},
    {FIELD(entropy_coef_max), NUMBER, AT(entropy_coef_max), 1, NULL},
    {FIELD(entropy_coef_delta), NUMBER, AT(entropy_coef_delta), 0.005, NULL},
    {FIELD(entropy_target), NUMBER, AT(entropy_target), 0.2, NULL},
};
#undef FIELD
#undef AT
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
    int optional = o->kind == OPTIONAL_NUMBER || o->kind == OPTIONAL_CHOICE, real = o->kind == NUMBER || o->kind == OPTIONAL_NUMBER;
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

static const struct { const char *name; size_t offset; int required; } normalizer_fields[] = {
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

static int put_mean(PyObject *dict, const char *name, struct loss_mean m) {
    return m.count > 0 ? put(dict, name, m.sum / m.count) : 0;
}

PyObject *loss_metrics_dict(const struct loss_metrics *m) {
    PyObject *d = PyDict_New();
    if (!d) return NULL;
    struct loss_mean region = {m->clip_low.sum + m->clip_high.sum, m->clip_low.count};
    int status = put(d, "policy_loss", m->policy_loss) || put(d, "loss/clamped_exponents", m->clamped_exponents) ||
                 put_mean(d, "kl", m->kl) || put_mean(d, "entropy", m->entropy) || put_mean(d, "clip_ratio/low_mean", m->clip_low) ||
                 put_mean(d, "clip_ratio/high_mean", m->clip_high) || put_mean(d, "clip_ratio/region_mean", region) ||
                 put_mean(d, "cispo_clip_ratio", m->cispo_clip) || put_mean(d, "vespo/phi_seq_mean", m->vespo_phi) ||
                 put_mean(d, "off_policy_mask/dropped", m->off_policy_dropped) ||
                 put_mean(d, "sampling/importance_sampling_ratio/mean", m->ratio) ||
                 put_mean(d, "sampling/sampling_logp_difference/mean", m->logp_difference);
    if (!status && m->clip_low.count > 0)
        status = put(d, "clip_ratio/low_min", m->clip_low_min) || put(d, "clip_ratio/high_max", m->clip_high_max);
    if (!status && m->ratio.count > 0)
        status = put(d, "sampling/importance_sampling_ratio/min", m->ratio_min) ||
                 put(d, "sampling/importance_sampling_ratio/max", m->ratio_max) ||
                 put(d, "sampling/sampling_logp_difference/max", m->logp_difference_max);
    if (status) Py_CLEAR(d);
    return d;
}

/* ---- functions ------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(loss_defaults_doc, "loss_defaults($module, /)\n--\n\nEvery loss option and its default.");
static PyObject *loss_defaults(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *d = PyDict_New();
    for (int i = 0; d && i < N_OPTIONS; i++) {
        const struct option *o = &options[i];
        PyObject *value = o->kind == NUMBER    ? PyFloat_FromDouble(o->standard)
                          : o->kind == INTEGER ? PyLong_FromDouble(o->standard)
                          : o->kind == FLAG    ? PyBool_FromLong((long)o->standard)
                          : o->kind == CHOICE  ? PyUnicode_FromString(o->choices[(int)o->standard])
                                               : Py_NewRef(Py_None);
        if (!value || PyDict_SetItemString(d, o->name, value)) Py_CLEAR(d);
        Py_XDECREF(value);
    }
    return d;
}

/* An optional float32 array of `n` numbers: *out = new reference or NULL for None. */
static int numbers_arg(PyArrayObject **out, PyObject *object, const char *name, int optional, npy_intp n) {
    *out = NULL;
    if (optional && object == Py_None) return 0;
    *out = array_arg(object, NPY_FLOAT, 1, name);
    if (!*out) return -1;
    if (PyArray_SIZE(*out) == n) return 0;
    PyErr_Format(PyExc_ValueError, "%s must hold %zd numbers, not %zd", name, (Py_ssize_t)n, (Py_ssize_t)PyArray_SIZE(*out));
    return -1;
}

static npy_intp sum_lengths(PyArrayObject *lengths) {
    npy_intp total = 0;
    for (npy_intp i = 0; i < PyArray_SIZE(lengths); i++) {
        if (DATA(int32_t, lengths)[i] < 0) {
            PyErr_Format(PyExc_ValueError, "lengths[%zd] is negative", (Py_ssize_t)i);
            return -1;
        }
        total += DATA(int32_t, lengths)[i];
    }
    if (PyArray_SIZE(lengths) <= INT32_MAX) return total;
    PyErr_SetString(PyExc_ValueError, "lengths has too many completions");
    return -1;
}

#define OPTIONAL_DATA(type, array) ((array) ? DATA(type, array) : NULL)

PyDoc_STRVAR(grpo_loss_doc, "grpo_loss($module, logps, old_logps, advantages, mask, ref_logps, entropies, lengths, loss, normalizer, /)\n--\n\n"
                            "(loss, dloss/dlogp, dloss/dentropy, metrics) of flat completions; see grpo.ops.grpo_loss.");
static PyObject *grpo_loss(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *in[7], *loss_dict, *normalizer_dict, *result = NULL;
    if (!PyArg_ParseTuple(args, "OOOOOOOOO:grpo_loss", &in[0], &in[1], &in[2], &in[3], &in[4], &in[5], &in[6], &loss_dict, &normalizer_dict)) return NULL;
    struct loss_config config;
    struct loss_normalizer normalizer;
    if (loss_config_parse(&config, loss_dict) || loss_normalizer_parse(&normalizer, normalizer_dict)) return NULL;
    PyArrayObject *logp = NULL, *old_logp = NULL, *advantage = NULL, *ref_logp = NULL, *entropy = NULL;
    PyArrayObject *mask = array_arg(in[3], NPY_UINT8, 1, "mask"), *lengths = array_arg(in[6], NPY_INT32, 1, "lengths");
    PyObject *coef = NULL, *ecoef = NULL, *metrics_dict = NULL;
    npy_intp n = mask && lengths ? sum_lengths(lengths) : -1;
    if (n < 0 || numbers_arg(&logp, in[0], "logps", 0, n) || numbers_arg(&old_logp, in[1], "old_logps", 0, n) ||
        numbers_arg(&advantage, in[2], "advantages", 0, PyArray_SIZE(lengths)) || numbers_arg(&ref_logp, in[4], "ref_logps", 1, n) ||
        numbers_arg(&entropy, in[5], "entropies", 1, n))
        goto done;
    if (PyArray_SIZE(mask) != n) {
        PyErr_Format(PyExc_ValueError, "mask must hold %zd bytes, not %zd", (Py_ssize_t)n, (Py_ssize_t)PyArray_SIZE(mask));
        goto done;
    }
    coef = array_new(NPY_FLOAT, 1, &n);
    ecoef = array_new(NPY_FLOAT, 1, &n);
    if (!coef || !ecoef) goto done;
    struct loss_metrics metrics;
    loss_metrics_init(&metrics);
    double loss = 0;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = loss_eval(&loss, DATA(float, (PyArrayObject *)coef), DATA(float, (PyArrayObject *)ecoef), &metrics, &config, &normalizer,
                       (int)PyArray_SIZE(lengths), DATA(int32_t, lengths), DATA(float, logp), DATA(float, old_logp),
                       OPTIONAL_DATA(float, ref_logp), OPTIONAL_DATA(float, entropy), DATA(float, advantage), DATA(uint8_t, mask));
    Py_END_ALLOW_THREADS
    if (status) raise_status(status);
    else if ((metrics_dict = loss_metrics_dict(&metrics))) result = Py_BuildValue("(dOOO)", loss, coef, ecoef, metrics_dict);
done:
    Py_XDECREF(mask);
    Py_XDECREF(lengths);
    Py_XDECREF(logp);
    Py_XDECREF(old_logp);
    Py_XDECREF(advantage);
    Py_XDECREF(ref_logp);
    Py_XDECREF(entropy);
    Py_XDECREF(coef);
    Py_XDECREF(ecoef);
    Py_XDECREF(metrics_dict);
    return result;
}

PyDoc_STRVAR(adapt_entropy_coef_doc, "adapt_entropy_coef($module, coef, entropy, loss, /)\n--\n\n"
                                     "(new coefficient, coefficient the next step applies); see grpo.ops.adapt_entropy_coef.");
static PyObject *adapt_entropy_coef(PyObject *module, PyObject *args) {
    (void)module;
    double coef, entropy;
    PyObject *dict;
    struct loss_config config;
    if (!PyArg_ParseTuple(args, "ddO:adapt_entropy_coef", &coef, &entropy, &dict) || loss_config_parse(&config, dict)) return NULL;
    double applied = loss_adapt_entropy(&coef, entropy, &config);
    return Py_BuildValue("(dd)", coef, applied);
}

PyDoc_STRVAR(group_advantages_doc, "group_advantages($module, rewards, weights, sizes, scale_rewards, multi_objective_aggregation, /)\n--\n\n"
                                   "Advantages (n) float32 of rewards (n, n_functions) float64; see grpo.ops.group_advantages.");
static PyObject *py_group_advantages(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *rewards_object, *weights_object, *sizes_object, *scale_object, *aggregation_object, *advantage = NULL;
    int scale, aggregation;
    if (!PyArg_ParseTuple(args, "OOOOO:group_advantages", &rewards_object, &weights_object, &sizes_object, &scale_object, &aggregation_object)) return NULL;
    if (choice_arg(&scale, "scale_rewards", advantage_scale_names, scale_object) ||
        choice_arg(&aggregation, "multi_objective_aggregation", reward_aggregation_names, aggregation_object))
        return NULL;
    PyArrayObject *rewards = array_arg(rewards_object, NPY_DOUBLE, 2, "rewards"), *weights = array_arg(weights_object, NPY_DOUBLE, 1, "weights");
    PyArrayObject *sizes = array_arg(sizes_object, NPY_INT32, 1, "sizes");
    if (!rewards || !weights || !sizes) goto done;
    npy_intp n = PyArray_DIM(rewards, 0), n_functions = PyArray_DIM(rewards, 1), rows = sum_lengths(sizes);
    if (rows < 0) goto done;
    if (rows != n || n > INT32_MAX || n_functions > INT32_MAX || PyArray_SIZE(weights) != n_functions) {
        PyErr_Format(PyExc_ValueError, "rewards has %zd rows and %zd columns, but groups hold %zd completions and there are %zd weights",
                     (Py_ssize_t)n, (Py_ssize_t)n_functions, (Py_ssize_t)rows, (Py_ssize_t)PyArray_SIZE(weights));
        goto done;
    }
    advantage = array_new(NPY_FLOAT, 1, &n);
    if (!advantage) goto done;
    int status = group_advantages(DATA(float, (PyArrayObject *)advantage), DATA(double, rewards), DATA(double, weights), DATA(int32_t, sizes),
                                  (int)PyArray_SIZE(sizes), (int)n_functions, scale, aggregation);
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

PyDoc_STRVAR(selective_log_softmax_doc, "selective_log_softmax($module, logits, ids, temperature, /)\n--\n\n"
                                        "(log-probs of ids, entropies) of logits (N, V); see grpo.ops.selective_log_softmax.");
static PyObject *py_selective_log_softmax(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *logits_object, *ids_object, *logp = NULL, *entropy = NULL, *result = NULL;
    double temperature;
    if (!PyArg_ParseTuple(args, "OOd:selective_log_softmax", &logits_object, &ids_object, &temperature)) return NULL;
    PyArrayObject *logits = array_arg(logits_object, NPY_FLOAT, 2, "logits"), *ids = array_arg(ids_object, NPY_INT32, 1, "ids");
    if (!logits || !ids) goto done;
    npy_intp n = PyArray_DIM(logits, 0);
    if (PyArray_SIZE(ids) != n || n > INT32_MAX || PyArray_DIM(logits, 1) > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "ids must hold one id for each of the %zd rows of logits, not %zd", (Py_ssize_t)n, (Py_ssize_t)PyArray_SIZE(ids));
        goto done;
    }
    logp = array_new(NPY_FLOAT, 1, &n);
    entropy = array_new(NPY_FLOAT, 1, &n);
    if (!logp || !entropy) goto done;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = selective_log_softmax(DATA(float, (PyArrayObject *)logp), DATA(float, (PyArrayObject *)entropy), DATA(float, logits),
                                   DATA(int32_t, ids), temperature, (int)n, (int)PyArray_DIM(logits, 1));
    Py_END_ALLOW_THREADS
    if (status) raise_status(status);
    else result = Py_BuildValue("(OO)", logp, entropy);
done:
    Py_XDECREF(logits);
    Py_XDECREF(ids);
    Py_XDECREF(logp);
    Py_XDECREF(entropy);
    return result;
}

static PyMethodDef methods[] = {
    {"loss_defaults", loss_defaults, METH_NOARGS, loss_defaults_doc},
    {"grpo_loss", grpo_loss, METH_VARARGS, grpo_loss_doc},
    {"adapt_entropy_coef", adapt_entropy_coef, METH_VARARGS, adapt_entropy_coef_doc},
    {"group_advantages", py_group_advantages, METH_VARARGS, group_advantages_doc},
    {"selective_log_softmax", py_selective_log_softmax, METH_VARARGS, selective_log_softmax_doc},
    {NULL, NULL, 0, NULL},
};

int add_loss(PyObject *module) { return PyModule_AddFunctions(module, methods); }
