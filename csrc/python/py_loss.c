#include "binding.h"

int add_loss(PyObject *module) {
    (void)module;
    return 0;
}
