/* SPDX-License-Identifier: MIT
 * features.c - which instruction sets this process may use, their names, and how many cores. The only place that asks the processor;
 * everywhere else an instruction set is a bit in a row's column `needs`.
 */
#include "cpu.h"
#include "../mutant.h"
#include "../status.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__aarch64__) || defined(__riscv)
#include <sys/auxv.h>
#endif

/* Weakest first, one family after the other. */
static const struct {
    const char *name;
    uint32_t isa, below; /* below: the bits that a cap at this name leaves */
} names[] = {
    {"scalar", ISA_SCALAR, ISA_SCALAR},
    {"vector", ISA_VECTOR, ISA_SCALAR | ISA_VECTOR},
    {"avx2", ISA_AVX2, ISA_SCALAR | ISA_VECTOR | ISA_AVX2},
    {"avx512", ISA_AVX512, ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512},
    {"avx512bf16", ISA_AVX512BF16, ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512 | ISA_AVX512BF16},
    {"neon", ISA_NEON, ISA_SCALAR | ISA_VECTOR | ISA_NEON},
    {"sve", ISA_SVE, ISA_SCALAR | ISA_VECTOR | ISA_NEON | ISA_SVE},
    {"rvv", ISA_RVV, ISA_SCALAR | ISA_VECTOR | ISA_RVV},
};
enum { NAMES = sizeof names / sizeof *names };

/* __builtin_cpu_supports also asks the operating system whether it saves the registers. */
uint32_t cpu_isa_present(void)
{
    uint32_t isa = ISA_SCALAR | ISA_VECTOR;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isa |= ISA_AVX2; /* every AVX2 machine has F16C */
    if ((isa & ISA_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        isa |= ISA_AVX512;
    if ((isa & ISA_AVX512) && __builtin_cpu_supports("avx512bf16")) isa |= ISA_AVX512BF16;
#if defined(HEED_EMULATE_AVX512)
    if (isa & ISA_AVX2) isa = (isa | ISA_AVX512) & ~(uint32_t)ISA_AVX512BF16; /* a test build: isa_avx512.c holds AVX2 instructions alone */
#endif
#elif defined(__aarch64__)
    isa |= ISA_NEON;
    if (getauxval(AT_HWCAP) & (1ul << 22)) isa |= ISA_SVE; /* HWCAP_SVE */
#elif defined(__riscv)
    if (getauxval(AT_HWCAP) & (1ul << ('V' - 'A'))) isa |= ISA_RVV;
#endif
    return isa;
}

bool cpu_isa_cap(const char *name, uint32_t present, uint32_t *isa)
{
    for (int n = 0; n < NAMES; n++) {
        if (strcmp(names[n].name, name)) continue;
        *isa = MUTANT(cpu_cap_ignored) ? present : present & names[n].below;
        return true;
    }
    return false;
}

const char *cpu_isa_name(uint32_t isa)
{
    for (int n = NAMES - 1; n >= 0; n--)
        if (isa & names[n].isa) return names[n].name;
    return "none";
}

/* First number of a file such as ".../thread_siblings_list" ("0,4" or "0-1"): the sibling that stands for its core. */
static int first_sibling(int cpu)
{
    char path[96], text[32];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (!file) return cpu;
    int first = cpu;
    if (fgets(text, sizeof text, file)) first = atoi(text);
    fclose(file);
    return first;
}

/* One per core with at least one hardware thread that this process may run on. */
int32_t cpu_physical_cores(void)
{
    cpu_set_t usable, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof usable, &usable)) {
        long online = sysconf(_SC_NPROCESSORS_ONLN); /* more processors than a cpu_set_t holds */
        return online < 1 ? 1 : online > MAX_WORKERS ? MAX_WORKERS : (int32_t)online;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &usable)) continue;
        const int core = first_sibling(cpu);
        if (core >= 0 && core < CPU_SETSIZE) CPU_SET(core, &cores);
    }
    const int count = CPU_COUNT(&cores);
    return count < 1 ? 1 : count > MAX_WORKERS ? MAX_WORKERS : count;
}

/* The value of a line "key : value" of /proc/cpuinfo. */
static void cpuinfo_line(const char *key, char *value, size_t capacity)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) || !colon) continue;
        colon[strcspn(colon, "\n")] = 0;
        colon += colon[1] == ' ' ? 2 : 1;
        const size_t length = strlen(colon) < capacity ? strlen(colon) : capacity - 1;
        memcpy(value, colon, length);
        value[length] = 0;
        break;
    }
    if (file) fclose(file);
}

void cpu_device_info(const struct services *services, heed_device_info *info)
{
    memset(info, 0, sizeof *info);
    info->struct_size = sizeof *info;
    info->backend = HEED_BACKEND_CPU;
    info->compute_units = cpu_physical_cores();
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0) info->memory_bytes = (uint64_t)pages * (uint64_t)page;
    for (int type = HEED_F32; type <= HEED_F8_E5M2; type++) info->types |= UINT64_C(1) << type;
    text_append(info->name, sizeof info->name, 0, "cpu");
    cpuinfo_line("model name", info->name, sizeof info->name);
    cpuinfo_line("vendor_id", info->vendor, sizeof info->vendor);
    text_append(info->driver, sizeof info->driver, 0, "built in");
    text_append(info->family, sizeof info->family, 0, "%s", cpu_isa_name(services->isa));
    text_append(info->matrix_unit, sizeof info->matrix_unit, 0, "none");
    text_append(info->platform, sizeof info->platform, 0, "cpu");
    info->usable = 1;
}
