/* A Model as the files of its subjects see it: py_model.c (tensors, scores, gradients), py_generate.c, py_store.c,
   py_trainer.c. It holds the device, the weights, and what calls on them share; who holds more (a Trainer, a Store)
   keeps the Model alive. */
#ifndef GRPO_PY_MODEL_H
#define GRPO_PY_MODEL_H

#include "binding.h"

#include "net/store.h"
#include "run/session.h"
#include "train/mixture.h"
#include "train/trainer.h"

typedef struct {
    PyObject_HEAD
    struct device device;
    struct weights *weights;
    struct workspace workspace;
    struct session session;
    struct mixture mixture;
    struct trainer *trainers;            /* alive on these weights: their masters follow what is set here */
    int busy;
} ModelObject;

typedef struct {
    PyObject_HEAD
    ModelObject *model;
    struct store store;
} StoreObject;

ModelObject *model_arg(PyObject *object);                                      /* borrowed; NULL with TypeError */
/* None: *store NULL. -1 with an exception for another type or a store of another model */
int store_arg(struct store **store, PyObject *object, const ModelObject *model);
PyObject *generate(ModelObject *self, PyObject *args, PyObject *kwargs);       /* py_generate.c: Model.generate */
extern const char generate_doc[];

/* float32 (tokens) each; ecoef None: NULL. The arguments keep them alive during the call. */
int coefficients_arg(struct coefficients *c, PyObject *coef, PyObject *ecoef, npy_intp tokens);
/* (rows, C) or (rows) float32 for a tensor; NULL with an exception */
PyObject *tensor_array(const struct tensor *t);
#define FLOATS(object) DATA(float, (PyArrayObject *)(object))

#endif
