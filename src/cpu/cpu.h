/* SPDX-License-Identifier: MIT
 * cpu.h - the CPU wing: its backend, its threads, its instruction sets.
 */
#ifndef HEED_CPU_H
#define HEED_CPU_H

#include "../internal.h"

extern const struct backend cpu_backend;

/* Scratch of all workers, to be added to a batch's workspace behind its partial results (backend hook `workspace`). */
size_t cpu_workspace_bytes(const struct heed_batch *batch);

/* Instruction sets of this machine, and the cap by name ("scalar", "avx2", "avx512", "avx512vbmi", "avx512bf16", "amx", "neon", "neonbf16", "sve", ...): all bits up to it.
 * false: unknown name. */
uint32_t cpu_isa_present(void);
bool cpu_isa_cap(const char *name, uint32_t present, uint32_t *isa);
const char *cpu_isa_name(uint32_t isa); /* of the highest bit */
/* What an x86 processor and its system say of themselves, and the sets that both allow. */
struct cpu_words {
    uint32_t max_leaf, leaf_1_ecx, leaf_7_ebx, leaf_7_1_eax; /* of CPUID */
    uint64_t xcr0;                                           /* 0 where the system saves nothing by XSAVE */
    uint32_t leaf_7_edx, vendor;                             /* vendor: EBX of leaf 0 */
    uint64_t granted;                                        /* state that the system gives this process on request: bits of XCR0 */
    uint32_t leaf_7_ecx;
};
uint32_t cpu_isa_of(const struct cpu_words *words);
/* The same of 64-bit ARM and of RISC-V. */
struct cpu_words_arm {
    uint64_t hwcap;      /* of the auxiliary vector */
    int32_t sve_length;  /* what prctl(PR_SVE_GET_VL) says: bytes of this thread's vectors, and flags above; negative: an error */
    uint64_t hwcap2;
};
struct cpu_words_riscv {
    uint64_t hwcap;
    uint32_t floats;     /* f32 in a vector register, as vsetvli of V 1.0 says; 0 where that asks for what there is not */
};
uint32_t cpu_isa_of_arm(const struct cpu_words_arm *words);
uint32_t cpu_isa_of_riscv(const struct cpu_words_riscv *words);
int32_t cpu_physical_cores(void);       /* that this process may use */

/* Whole CPUs that a container's quota grants, one at least; INT32_MAX without one (quota.c). Threads that num_threads 0 means: one per physical
 * core, no more than the quota. root: "", or a folder with proc and sys of a test. */
int32_t cpu_quota(const char *root);
int32_t cpu_workers(const char *root);

/* The built-in pool behind heed_threads: num_threads 0 = cpu_workers(); restarted in a forked child. */
heed_status cpu_threads_create(struct services *services, int32_t num_threads);
void cpu_threads_destroy(struct services *services);
/* Of the built-in pool. Are its threads awake, or was cpu_threads_used() called so recently that they are worth waking for little work? */
bool cpu_threads_near(const struct services *services);
void cpu_threads_used(const struct services *services);

/* Of an x86 processor that calls itself `vendor` (twelve letters): device->far_cache. */
bool cpu_far_cache(const char *vendor);
/* Fills device 0, but for what the context does. */
void cpu_device_costs(struct device *device);
/* Fills device 0's info. */
void cpu_device_info(const struct services *services, heed_device_info *info);

#endif
