/* Opens the CUDA plugin when device "cuda" is first asked for. */
#define _GNU_SOURCE
#include "ops/plugin.h"
#include "base/base.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A library stays open for good: the CUDA runtime does not survive being unloaded. Another GRPO_CUDA_LIBRARY later in
   the process opens a second one. */
static struct {
    pthread_mutex_t lock;
    const struct plugin *plugin;
    char path[4096];
} opened = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int host_fail(int code, const char *sentence) { return fail(code, "%s", sentence); }
static int host_poll(void) { return poll_interrupt(); }
static const struct plugin_host host = {host_fail, host_poll, memory_account};

/* _lib/libgrpo_cuda.so in the folder of the library that holds this function */
static int default_path(char *path, size_t size) {
    Dl_info info;
    if (!dladdr((void *)(intptr_t)default_path, &info) || !info.dli_fname)
        return fail(E_DEVICE, "the folder of the core is not known");
    const char *slash = strrchr(info.dli_fname, '/');
    int folder = slash ? (int)(slash - info.dli_fname) + 1 : 0;
    snprintf(path, size, "%.*s_lib/libgrpo_cuda.so", folder, info.dli_fname);
    return OK;
}

/* From `open` on, a table is function pointers and nothing else. */
static int is_complete(const struct ops *ops) {
    void (*entry)(void);
    for (const char *at = (const char *)&ops->open; at < (const char *)(ops + 1); at += sizeof entry) {
        memcpy(&entry, at, sizeof entry);
        if (!entry) return 0;
    }
    return 1;
}

static int check(const struct plugin *p, uint32_t own, const char *path) {
    if (!p || p->abi != PLUGIN_ABI)
        return fail(E_DEVICE,
                    "the CUDA plugin %s has interface %u, this core needs %u: build both from one source "
                    "(pip install .)",
                    path, p ? p->abi : own, (unsigned)PLUGIN_ABI);
    if (p->bytes != sizeof(struct plugin) || p->ops_bytes != sizeof(struct ops))
        return fail(E_DEVICE,
                    "the CUDA plugin %s has tables of %u and %u bytes, this core needs %zu and %zu: build "
                    "both from one source",
                    path, p->bytes, p->ops_bytes, sizeof(struct plugin), sizeof(struct ops));
    return is_complete(p->ops) ? OK : fail(E_DEVICE, "the CUDA plugin %s lacks operations", path);
}

static int open_library(const struct plugin **out, const char *path, int named) {
    if (access(path, R_OK))
        return named ? fail(E_DEVICE, "GRPO_CUDA_LIBRARY=%s: no such file", path)
                     : fail(E_DEVICE,
                            "this build has no CUDA plugin (%s): install nvcc (CUDA 12.4 or newer) and build "
                            "again with GRPO_CUDA=1 pip install .",
                            path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return fail(E_DEVICE, "the CUDA plugin does not load: %s", dlerror());
    plugin_get *get = (plugin_get *)(intptr_t)dlsym(library, "grpo_cuda_get");
    if (!get) return fail(E_DEVICE, "%s is no CUDA plugin: %s", path, dlerror());
    uint32_t own = 0;
    const struct plugin *plugin = get(PLUGIN_ABI, &host, &own);
    TRY(check(plugin, own, path));
    *out = plugin;
    return OK;
}

int plugin_find(const struct plugin **out) {
    char path[sizeof opened.path];
    const char *named = getenv("GRPO_CUDA_LIBRARY");
    int is_named = named && *named;
    if (is_named) snprintf(path, sizeof path, "%s", named);
    else TRY(default_path(path, sizeof path));
    pthread_mutex_lock(&opened.lock);
    int status = OK;
    if (!opened.plugin || strcmp(path, opened.path)) {
        const struct plugin *plugin = NULL;
        status = open_library(&plugin, path, is_named);
        if (!status) {
            opened.plugin = plugin;
            memcpy(opened.path, path, sizeof path);
        }
    }
    *out = opened.plugin;
    pthread_mutex_unlock(&opened.lock);
    return status;
}

const char *plugin_path(void) { return opened.path; }
