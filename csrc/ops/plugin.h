/* The boundary between the core and a backend that lives in a library of its own (libgrpo_cuda.so): one exported
   function, one table. The library knows no Python and needs nothing but libc, so one build serves every Python, and
   the core loads where its devices are absent. */
#ifndef GRPO_PLUGIN_H
#define GRPO_PLUGIN_H

#include "ops/ops.h"

/* Raise it with every change of this file, of ops.h or of ops.def that moves or redefines anything. */
enum { PLUGIN_ABI = 14 };

/* What the library may ask of the core. */
struct plugin_host {
    int (*fail)(int code, const char *sentence);       /* base.h's fail(); returns code */
    int (*poll)(void);                                 /* base.h's poll_interrupt() */
    void (*account)(ptrdiff_t bytes);                  /* device memory taken (> 0) or given back: memory_in_use() */
};

struct plugin_device {
    char name[64];
    int major, minor;                                  /* compute capability */
    size_t memory;                                     /* bytes */
};

struct plugin {
    uint32_t abi;                                      /* PLUGIN_ABI of the build; up to here the layout stays */
    uint32_t bytes, ops_bytes;                         /* sizeof(struct plugin), sizeof(struct ops) */
    const struct ops *ops;
    int toolkit;                                       /* 13000 = CUDA 13.0 */
    const char *architectures;                         /* code in the library: "80+PTX;90" */
    int (*devices)(int *count);                        /* asks the driver; E_DEVICE says why there is none */
    int (*device)(struct plugin_device *out, int index);
    void (*search)(const char *folders);               /* where else cuBLASLt may be, separated by ':' */
    const char *(*blas)(void); /* "libcublasLt.so.13 (13.1.0)" as found, or why there is none */
    int (*products)(const char **name); /* "wgmma" or "mma.sync (why)"; opens the device */
};

/* The exported function, "grpo_cuda_get". NULL when it cannot serve `abi`: *own is the number it was built with. */
typedef const struct plugin *plugin_get(uint32_t abi, const struct plugin_host *host, uint32_t *own);

/* The CUDA plugin: beside the core in _lib/, or the file that GRPO_CUDA_LIBRARY names. Opened once, never closed.
   E_DEVICE says what is missing. Asks no driver. */
int plugin_find(const struct plugin **out);
const char *plugin_path(void); /* of the one found last; "" = none */

#endif
