#include "binding.h"

int add_model(PyObject *module) {
    (void)module;
    return 0;
}
