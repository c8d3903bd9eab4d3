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
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__) || defined(__riscv)
#include <sys/auxv.h>
#endif
#if defined(__aarch64__)
#include <sys/prctl.h>
#endif

enum { ISA_SVE = ISA_SVE128 | ISA_SVE256 | ISA_SVE512, ISA_RVV = ISA_RVV128 | ISA_RVV256 };

/* Weakest first, one family after the other. */
static const struct {
    const char *name;
    uint32_t isa, below; /* below: the bits that a cap at this name leaves */
} names[] = {
    {"scalar", ISA_SCALAR, ISA_SCALAR},
    {"vector", ISA_VECTOR, ISA_SCALAR | ISA_VECTOR},
    {"avx2", ISA_AVX2, ISA_SCALAR | ISA_VECTOR | ISA_AVX2},
    {"avx512", ISA_AVX512, ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512},
    {"avx512vbmi", ISA_AVX512VBMI, ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512 | ISA_AVX512VBMI},
    {"avx512bf16", ISA_AVX512BF16, ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512 | ISA_AVX512VBMI | ISA_AVX512BF16},
    {"amx", ISA_AMX, ISA_SCALAR | ISA_VECTOR | ISA_AVX2 | ISA_AVX512 | ISA_AVX512VBMI | ISA_AVX512BF16 | ISA_AMX | ISA_SLOW_DOTS},
    {"sve", ISA_SVE, ISA_SCALAR | ISA_VECTOR | ISA_SVE}, /* of whatever length, also where neon is as good */
    {"sve128", ISA_SVE128, ISA_SCALAR | ISA_VECTOR | ISA_SVE128},
    {"neon", ISA_NEON, ISA_SCALAR | ISA_VECTOR | ISA_NEON},
    {"neonbf16", ISA_NEONBF16, ISA_SCALAR | ISA_VECTOR | ISA_NEON | ISA_NEONBF16},
    {"sve256", ISA_SVE256, ISA_SCALAR | ISA_VECTOR | ISA_NEON | ISA_NEONBF16 | ISA_SVE128 | ISA_SVE256},
    {"sve512", ISA_SVE512, ISA_SCALAR | ISA_VECTOR | ISA_NEON | ISA_NEONBF16 | ISA_SVE},
    {"rvv", ISA_RVV, ISA_SCALAR | ISA_VECTOR | ISA_RVV},
    {"rvv128", ISA_RVV128, ISA_SCALAR | ISA_VECTOR | ISA_RVV128},
    {"rvv256", ISA_RVV256, ISA_SCALAR | ISA_VECTOR | ISA_RVV},
};
enum { NAMES = sizeof names / sizeof *names };

static bool all_set(uint64_t word, uint64_t bits) { return (word & bits) == bits; }
#define BIT(n) (UINT64_C(1) << (n))
#define TILE_STATE (BIT(17) | BIT(18)) /* of XCR0: the tiles' shapes, the tiles */

/* Intel's VDPBF16PS has a quarter of the rate of an fma (Emerald Rapids: 1.0 against 4.1 thousand million a second), so half as many products; AMD's has the
 * same rate. Who asks for the set by name gets its rows.
 *
 * The processor has the instructions, and the system saves the registers they work in: both, or an AVX-512 instruction is SIGILL, or worse, loses its
 * registers at the next switch. */
uint32_t cpu_isa_of(const struct cpu_words *w)
{
    enum { FMA = 12, OSXSAVE = 27, AVX = 28, F16C = 29, AVX2 = 5, F = 16, DQ = 17, CD = 28, BW = 30, VL = 31, VBMI = 1, BF16 = 5, AMX_BF16 = 22, AMX_TILE = 24, INTEL = 0x756e6547 };
    const uint64_t ymm = BIT(1) | BIT(2), zmm = ymm | BIT(5) | BIT(6) | BIT(7); /* of XCR0: SSE, AVX; masks, upper halves, registers 16 to 31 */
    uint32_t isa = ISA_SCALAR | ISA_VECTOR;
    if (w->max_leaf < 7 || !all_set(w->leaf_1_ecx, BIT(FMA) | BIT(OSXSAVE) | BIT(AVX) | BIT(F16C))) return isa;
    if (!all_set(w->leaf_7_ebx, BIT(AVX2)) || !all_set(w->xcr0, ymm)) return isa;
    isa |= ISA_AVX2;
    if (!all_set(w->leaf_7_ebx, BIT(F) | BIT(DQ) | BIT(CD) | BIT(BW) | BIT(VL))) return isa;
    if (!all_set(w->xcr0, zmm) && !MUTANT(cpu_zmm_unsaved)) return isa;
    isa |= ISA_AVX512;
    if (all_set(w->leaf_7_ecx, BIT(VBMI))) isa |= ISA_AVX512VBMI;
    if (!all_set(w->leaf_7_1_eax, BIT(BF16))) return isa;
    isa |= ISA_AVX512BF16;
    if (w->vendor == INTEL) isa |= ISA_SLOW_DOTS;
    if (all_set(w->leaf_7_edx, BIT(AMX_BF16) | BIT(AMX_TILE)) && all_set(w->xcr0, TILE_STATE) && all_set(w->granted, TILE_STATE)) isa |= ISA_AMX;
    return isa;
}

/* One length alone is right for code with vectors of a fixed size: longer ones hold more than it writes, shorter ones less. */
static uint32_t isa_of_length(int32_t bits, uint32_t isa_128, uint32_t isa_256, uint32_t isa_512)
{
    if (MUTANT(cpu_length_at_least) && bits > 512) bits = 512;
    return bits == 128 ? isa_128 : bits == 256 ? isa_256 : bits == 512 ? isa_512 : 0;
}

uint32_t cpu_isa_of_arm(const struct cpu_words_arm *w)
{
    enum { SVE = 22, BF16 = 14, BYTES = 0xffff };
    uint32_t isa = ISA_SCALAR | ISA_VECTOR | ISA_NEON;
    if (all_set(w->hwcap2, BIT(BF16))) isa |= ISA_NEONBF16;
    if (!all_set(w->hwcap, BIT(SVE)) || w->sve_length < 0) return isa;
    return isa | isa_of_length(8 * (MUTANT(cpu_length_flags) ? w->sve_length : w->sve_length & BYTES), ISA_SVE128, ISA_SVE256, ISA_SVE512);
}

/* Some systems set the bit of V for a draft of it, in which the question's number of floats is none. */
uint32_t cpu_isa_of_riscv(const struct cpu_words_riscv *w)
{
    const uint32_t isa = ISA_SCALAR | ISA_VECTOR;
    if (!all_set(w->hwcap, BIT('V' - 'A')) && !MUTANT(cpu_length_unasked)) return isa;
    return isa | isa_of_length(32 * (int32_t)w->floats, ISA_RVV128, ISA_RVV256, 0);
}

#if defined(__aarch64__)
static struct cpu_words_arm words_here(void)
{
    struct cpu_words_arm w = {getauxval(AT_HWCAP), -1, getauxval(AT_HWCAP2)};
#if defined(PR_SVE_GET_VL)
    w.sve_length = prctl(PR_SVE_GET_VL, 0, 0, 0, 0);
#endif
    return w;
}
#elif defined(__riscv)
/* vsetvli t0, zero, e32, m1, ta, ma in numbers, since this file is compiled without V. */
static __attribute__((noinline)) struct cpu_words_riscv words_here(void)
{
    struct cpu_words_riscv w = {.hwcap = getauxval(AT_HWCAP)};
    unsigned long floats = 0;
    if (w.hwcap & BIT('V' - 'A')) __asm__ volatile(".4byte 0x0d0072d7\n\tmv %0, t0" : "=r"(floats) : : "t0");
    w.floats = (uint32_t)floats;
    return w;
}
#elif defined(__x86_64__)
/* Linux gives a process its tiles when asked for them (arch_prctl(2), since 5.16): a thread that uses them then needs 8 KiB more wherever its registers are saved.
 * To ask again changes nothing. A system without the question has no tiles for us. */
static uint64_t tiles_granted(uint64_t xcr0)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { GET_PERMISSION = 0x1022, REQUEST_PERMISSION = 0x1023, TILES = 18 };
    uint64_t granted = 0;
    if (!all_set(xcr0, TILE_STATE) || syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILES)) return 0;
    return syscall(SYS_arch_prctl, GET_PERMISSION, &granted) ? 0 : granted;
#else
    (void)xcr0;
    return 0;
#endif
}

static struct cpu_words words_here(void)
{
    struct cpu_words w = {0};
    uint32_t eax, ebx, ecx, edx;
    w.max_leaf = __get_cpuid_max(0, &w.vendor);
    if (w.max_leaf < 7) return w;
    __cpuid(1, eax, ebx, ecx, edx);
    w.leaf_1_ecx = ecx;
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    w.leaf_7_ebx = ebx;
    w.leaf_7_ecx = ecx;
    w.leaf_7_edx = edx;
    if (eax >= 1) {
        __cpuid_count(7, 1, eax, ebx, ecx, edx);
        w.leaf_7_1_eax = eax;
    }
    if (w.leaf_1_ecx & 1u << 27) { /* OSXSAVE: without it xgetbv is no instruction */
        __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
        w.xcr0 = (uint64_t)edx << 32 | eax;
    }
    w.granted = tiles_granted(w.xcr0);
    return w;
}
#endif

uint32_t cpu_isa_present(void)
{
    uint32_t isa = ISA_SCALAR | ISA_VECTOR;
#if defined(__x86_64__)
    const struct cpu_words words = words_here();
    isa = cpu_isa_of(&words);
#if defined(HEED_EMULATE_AVX512)
    if (isa & ISA_AVX2) isa = (isa | ISA_AVX512) & ~(uint32_t)(ISA_AVX512VBMI | ISA_AVX512BF16 | ISA_AMX); /* a test build: isa_avx512.c holds AVX2 instructions alone */
#endif
#elif defined(__aarch64__)
    const struct cpu_words_arm words = words_here();
    isa = cpu_isa_of_arm(&words);
#elif defined(__riscv)
    const struct cpu_words_riscv words = words_here();
    isa = cpu_isa_of_riscv(&words);
#endif
#if !defined(HEED_SVE) /* no rows for it in this library */
    isa &= ~(uint32_t)ISA_SVE;
#endif
#if !defined(HEED_RVV)
    isa &= ~(uint32_t)ISA_RVV;
#endif
#if !defined(HEED_ARM_BF16)
    isa &= ~(uint32_t)ISA_NEONBF16;
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

/* Behind 2 MiB of an Emerald Rapids core's own a line takes 145 ns, since cores share a mesh of slices. */
bool cpu_far_cache(const char *vendor) { return !strcmp(vendor, "GenuineIntel"); }

void cpu_device_costs(struct device *device)
{
    char vendor[13] = "";
#if defined(__x86_64__)
    uint32_t eax, words[3];
    __cpuid(0, eax, words[0], words[2], words[1]);
    memcpy(vendor, words, 12);
#endif
    device->far_cache = cpu_far_cache(vendor);
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
