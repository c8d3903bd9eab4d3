/* SPDX-License-Identifier: MIT
 * cpu.h - the CPU wing: its backend, its threads, its instruction sets.
 */
#ifndef HEED_CPU_H
#define HEED_CPU_H

#include "../internal.h"

extern const struct backend cpu_backend;

/* Scratch of all workers, to be added to a batch's workspace behind its partial results (backend hook `workspace`). */
size_t cpu_workspace_bytes(const struct heed_batch *batch);

/* Instruction sets of this machine, and the cap by name ("scalar", "avx2", "avx512", "avx512bf16", "neon", ...): all bits up to it.
 * false: unknown name. */
uint32_t cpu_isa_present(void);
bool cpu_isa_cap(const char *name, uint32_t present, uint32_t *isa);
const char *cpu_isa_name(uint32_t isa); /* of the highest bit */
int32_t cpu_physical_cores(void);       /* that this process may use */

/* The built-in pool behind heed_threads: num_threads 0 = physical cores; restarted in a forked child. */
heed_status cpu_threads_create(struct services *services, int32_t num_threads);
void cpu_threads_destroy(struct services *services);

/* Fills device 0's info. */
void cpu_device_info(const struct services *services, heed_device_info *info);

#endif
