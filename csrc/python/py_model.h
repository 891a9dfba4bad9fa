/* A Model as the files of its subjects see it: py_model.c (tensors, scores, gradients), py_generate.c, py_look.c,
   py_store.c, py_trainer.c. It holds the device, the weights, and what calls on them share; who holds more (a Trainer,
   a Store) keeps the Model alive. */
#ifndef GRPO_PY_MODEL_H
#define GRPO_PY_MODEL_H

#include "py_groups.h"

#include "net/store.h"
#include "run/session.h"
#include "train/mixture.h"
#include "train/trainer.h"

typedef struct {
    PyObject_HEAD
    struct device device;
    struct weights *weights, *tower;     /* of the text; NULL: it sees nothing */
    struct workspace workspace;
    struct session session;
    struct mixture mixture, tower_mixture;
    struct trainer *trainers;            /* alive on these weights: their masters follow what is set here */
    int busy;
} ModelObject;

typedef struct {
    PyObject_HEAD
    ModelObject *model;
    struct store store;
} StoreObject;

/* Frees the trainers that are abandoned, unless a call on another thread may be walking through them. */
void free_trainers(ModelObject *model);
ModelObject *model_arg(PyObject *object);                                      /* borrowed; NULL with TypeError */
/* None: *store NULL. -1 with an exception for another type or a store of another model */
int store_arg(struct store **store, PyObject *object, const ModelObject *model);
PyObject *generate(ModelObject *self, PyObject *args, PyObject *kwargs);       /* py_generate.c: Model.generate */
extern const char generate_doc[];
PyObject *attention(ModelObject *self, PyObject *args, PyObject *kwargs);      /* py_look.c: Model.attention */
extern const char attention_doc[];

/* float32 (tokens) each; ecoef None: NULL. The arguments keep them alive during the call. */
int coefficients_arg(struct coefficients *c, PyObject *coef, PyObject *ecoef, npy_intp tokens);
/* A tensor of the text or of the tower, and whose it is; -1 with an exception */
int find_tensor(struct tensor *t, struct weights **w, const ModelObject *self, const char *name);
/* (name, shape) of every piece of every parameter, where at (n_params; may be NULL) is not NOT_TRAINED */
int list_tensors(PyObject *list, const struct weights *w, const size_t *at);
/* 0 with an exception for an array of another shape */
int shape_fits(PyArrayObject *array, const struct tensor *t, const struct weights *w, const char *name);
/* float32 of a tensor's shape; NULL with an exception */
PyObject *tensor_array(const struct tensor *t, const struct weights *w);
#define FLOATS(object) DATA(float, (PyArrayObject *)(object))

#endif
