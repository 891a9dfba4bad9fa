/* What races.cpp asks of the emulator, and what the emulator tells it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <string>

/* A byte that threads share: its offset in `name`; shadow: cuda_host_shadow_bytes(1) of races.cpp's own, zero at
   first. */
struct cuda_host_memory { const char *name; size_t offset; bool shared; char *shadow; };
bool cuda_host_find(cuda_host_memory *where, const void *p);
std::string cuda_host_place(const void *code);         /* function, file and line, where the library says so */

size_t cuda_host_shadow_bytes(size_t bytes);
void cuda_host_races_kernel(bool begins);
void cuda_host_races_block();
void cuda_host_races_barrier();
void cuda_host_races_warp(unsigned thread);
/* 16 bytes by cp.async; global: NULL = zeros */
void cuda_host_races_copy(void *shared, const void *global, bool lands);
void cuda_host_races_read(const void *p, size_t bytes);
