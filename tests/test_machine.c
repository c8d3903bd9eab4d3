/* SPDX-License-Identifier: MIT
 * test_machine.c - what a machine and its system allow: instruction sets by stored words of CPUID and XCR0, or of what ARM and RISC-V are asked, and the
 * CPU quota of a container by the files of made-up control groups. Nothing here depends on the machine that runs it, but the first words are held against the compiler's reading.
 */
#include "counting.h"
#include "cpu/cpu.h"
#include <limits.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- whisper.cpp PR#3699, jax#2906: instruction sets ------------------------------------------ */

enum {
    V2 = ISA_SCALAR | ISA_VECTOR,
    V3 = V2 | ISA_AVX2,
    V4 = V3 | ISA_AVX512,
    V4BF16 = V4 | ISA_AVX512BF16,
    SLOW = V4BF16 | ISA_SLOW_DOTS,
    TILES = SLOW | ISA_AMX
};

/* Zen 4 as read on one; the others are it with the bits that its description names. */
#define NO_TILES 0, 0x68747541, 0, 0
#define ZEN4 28, 0xfffa3203, 0xf1bf07ab, 0x20
/* Emerald Rapids, likewise. */
#define EMERALD 32, 0xfffa3203, 0xf1bf27eb, 0x1c30
#define INTEL 0x756e6547
static const struct {
    const char *what;
    struct cpu_words words;
    uint32_t isa;
} machines[] = {
    {"Zen 4", {ZEN4, 0xe7, NO_TILES}, V4BF16},
    {"Zen 4 whose system has MPX and AMX state, too", {ZEN4, 0x602ff, NO_TILES}, V4BF16},
    {"Emerald Rapids", {EMERALD, 0x602e7, 0xbfd14410, INTEL, 0x602e7, 0}, TILES},
    {"the same, whose system does not grant tiles", {EMERALD, 0x602e7, 0xbfd14410, INTEL, 0x2e7, 0}, SLOW},
    {"the same, whose system grants their shapes alone", {EMERALD, 0x602e7, 0xbfd14410, INTEL, 0x202e7, 0}, SLOW},
    {"the same, whose system saves no tiles", {EMERALD, 0x202e7, 0xbfd14410, INTEL, 0x602e7, 0}, SLOW},
    {"tiles of whole numbers alone", {EMERALD, 0x602e7, 0xbfd14410 & ~(1u << 22), INTEL, 0x602e7, 0}, SLOW},
    {"bf16 tiles without tiles", {EMERALD, 0x602e7, 0xbfd14410 & ~(1u << 24), INTEL, 0x602e7, 0}, SLOW},
    {"tiles without bf16 dots", {32, 0xfffa3203, 0xf1bf27eb, 0x1c10, 0x602e7, 0xbfd14410, INTEL, 0x602e7, 0}, V4},
    {"tiles of another maker", {EMERALD, 0x602e7, 0xbfd14410, 0x68747541, 0x602e7, 0}, V4BF16 | ISA_AMX},
    {"Zen 4 with its bytes by table", {ZEN4, 0xe7, 0, 0x68747541, 0, 0x405fce}, V4BF16 | ISA_AVX512VBMI},
    {"bytes by table, no bf16 dots (Ice Lake)", {28, 0xfffa3203, 0xf1bf07ab, 0, 0xe7, 0, 0x68747541, 0, 0x2}, V4 | ISA_AVX512VBMI},
    {"bytes by table, nothing of AVX-512 saved", {ZEN4, 0x07, 0, 0x68747541, 0, 0x2}, V3},
    {"AVX-512 in CPUID, registers 16 to 31 not saved", {ZEN4, 0x67, NO_TILES}, V3},
    {"AVX-512 in CPUID, upper halves not saved", {ZEN4, 0xa7, NO_TILES}, V3},
    {"AVX-512 in CPUID, masks not saved", {ZEN4, 0xc7, NO_TILES}, V3},
    {"AVX-512 in CPUID, nothing of it saved", {ZEN4, 0x07, NO_TILES}, V3},
    {"upper halves of ymm not saved", {ZEN4, 0x03, NO_TILES}, V2},
    {"all of zmm said to be saved, but not ymm", {ZEN4, 0xe3, NO_TILES}, V2},
    {"no XSAVE at all", {28, 0xfffa3203 & ~(1u << 27), 0xf1bf07ab, 0x20, 0, NO_TILES}, V2},
    {"XCR0 of an emulator that forgot OSXSAVE", {28, 0xfffa3203 & ~(1u << 27), 0xf1bf07ab, 0x20, 0xe7, NO_TILES}, V2},
    {"no bf16 dots (Skylake-X)", {22, 0xfffa3203, 0xf1bf07ab, 0, 0xe7, NO_TILES}, V4},
    {"AVX-512 without VL, BW and DQ (Knights Landing)", {13, 0xfffa3203, 0xf1bf07ab & ~(1u << 31 | 1u << 30 | 1u << 17), 0, 0xe7, NO_TILES}, V3},
    {"AVX-512 without CD", {28, 0xfffa3203, 0xf1bf07ab & ~(1u << 28), 0x20, 0xe7, NO_TILES}, V3},
    {"AVX-512 F hidden by a hypervisor, the rest left", {28, 0xfffa3203, 0xf1bf07ab & ~(1u << 16), 0x20, 0xe7, NO_TILES}, V3},
    {"no AVX-512 (Zen 3)", {16, 0xfffa3203, 0x219c97a9, 0, 0x207, NO_TILES}, V3},
    {"AVX2 hidden, AVX-512 left", {28, 0xfffa3203, 0xf1bf07ab & ~(1u << 5), 0x20, 0xe7, NO_TILES}, V2},
    {"AVX2 without FMA", {28, 0xfffa3203 & ~(1u << 12), 0xf1bf07ab, 0x20, 0xe7, NO_TILES}, V2},
    {"AVX2 without F16C", {28, 0xfffa3203 & ~(1u << 29), 0xf1bf07ab, 0x20, 0xe7, NO_TILES}, V2},
    {"AVX2 without AVX", {28, 0xfffa3203 & ~(1u << 28), 0xf1bf07ab, 0x20, 0xe7, NO_TILES}, V2},
    {"leaves cut off at 6 by a hypervisor", {6, 0xfffa3203, 0xf1bf07ab, 0x20, 0xe7, NO_TILES}, V2},
    {"SSE alone", {10, 0x00180201, 0, 0, 0, NO_TILES}, V2},
    {"nothing answered", {0, 0, 0, 0, 0, NO_TILES}, V2},
};

Test(machine, instruction_sets_by_stored_words)
{
    struct counts counts = {0};
    for (size_t n = 0; n < sizeof machines / sizeof *machines; n++) {
        const uint32_t isa = cpu_isa_of(&machines[n].words);
        char text[160];
        snprintf(text, sizeof text, "test_machine.c: %s: 0x%x, should be 0x%x", machines[n].what, (unsigned)isa, (unsigned)machines[n].isa);
        count_check(&counts, isa == machines[n].isa, text);
    }
    count_end(&counts);
}

/* Vectors of a length that the machine chooses: rows of exactly that length, or of none. The bit of SVE among others; flags stand above the length. */
enum { ARM = V2 | ISA_NEON };
static const struct {
    const char *what;
    struct cpu_words_arm words;
    uint32_t isa;
} arms[] = {
    {"no SVE (Cortex-A72)", {0x8ff, -1, 0}, ARM},
    {"no SVE, and a length all the same", {0x8ff, 32, 0}, ARM},
    {"SVE of 128 bits (Neoverse N2)", {1u << 22 | 0xfb, 16, 0}, ARM | ISA_SVE128},
    {"SVE of 256 bits (Neoverse V1)", {1u << 22 | 0xfb, 32, 0}, ARM | ISA_SVE256},
    {"SVE of 512 bits (A64FX)", {1u << 22 | 0xfb, 64, 0}, ARM | ISA_SVE512},
    {"256 bits, inherited by children", {1u << 22, 1 << 17 | 32, 0}, ARM | ISA_SVE256},
    {"256 bits, all flags", {1u << 22, 3 << 17 | 32, 0}, ARM | ISA_SVE256},
    {"384 bits", {1u << 22, 48, 0}, ARM},
    {"1024 bits", {1u << 22, 128, 0}, ARM},
    {"2048 bits", {1u << 22, 256, 0}, ARM},
    {"no bits", {1u << 22, 0, 0}, ARM},
    {"a system that does not know the question", {1u << 22, -1, 0}, ARM},
    {"bf16 dots, no SVE (Apple M2 under Linux)", {0x8ff, -1, 1u << 14}, ARM | ISA_NEONBF16},
    {"bf16 dots and SVE of 256 bits (Neoverse V1)", {1u << 22 | 0xfb, 32, 1u << 14 | 1u << 13}, ARM | ISA_NEONBF16 | ISA_SVE256},
    {"int8 matrices, no bf16", {0x8ff, -1, 1u << 13}, ARM},
};
static const struct {
    const char *what;
    struct cpu_words_riscv words;
    uint32_t isa;
} riscvs[] = {
    {"no V", {0x112d, 0}, V2},
    {"no V, and a length all the same", {0x112d, 8}, V2},
    {"V of 128 bits", {1u << 21 | 0x112d, 4}, V2 | ISA_RVV128},
    {"V of 256 bits", {1u << 21 | 0x112d, 8}, V2 | ISA_RVV256},
    {"V of 64 bits", {1u << 21 | 0x112d, 2}, V2},
    {"V of 512 bits", {1u << 21 | 0x112d, 16}, V2},
    {"V of 1024 bits", {1u << 21 | 0x112d, 32}, V2},
    {"a draft of V, which refuses the question", {1u << 21 | 0x112d, 0}, V2},
};

Test(machine, lengths_of_vectors_by_stored_words)
{
    struct counts counts = {0};
    char text[160];
    for (size_t n = 0; n < sizeof arms / sizeof *arms; n++) {
        const uint32_t isa = cpu_isa_of_arm(&arms[n].words);
        snprintf(text, sizeof text, "test_machine.c: %s: 0x%x, should be 0x%x", arms[n].what, (unsigned)isa, (unsigned)arms[n].isa);
        count_check(&counts, isa == arms[n].isa, text);
    }
    for (size_t n = 0; n < sizeof riscvs / sizeof *riscvs; n++) {
        const uint32_t isa = cpu_isa_of_riscv(&riscvs[n].words);
        snprintf(text, sizeof text, "test_machine.c: %s: 0x%x, should be 0x%x", riscvs[n].what, (unsigned)isa, (unsigned)riscvs[n].isa);
        count_check(&counts, isa == riscvs[n].isa, text);
    }
    count_end(&counts);
}

#if defined(__x86_64__) && !defined(HEED_EMULATE_AVX512)
Test(machine, this_machine_as_the_compiler_reads_it)
{
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd");
    const bool vbmi = avx512 && __builtin_cpu_supports("avx512vbmi");
    const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    const uint32_t isa = cpu_isa_present(), asked = ISA_AMX | ISA_SLOW_DOTS; /* of the system, and of the maker's name */
    cr_assert_eq((isa & ISA_AVX512VBMI) != 0, vbmi);
    cr_assert_eq(isa & ~asked & ~(uint32_t)ISA_AVX512VBMI, (uint32_t)(bf16 ? V4BF16 : avx512 ? V4 : avx2 ? V3 : V2));
    cr_assert_eq((isa & ISA_SLOW_DOTS) != 0, bf16 && __builtin_cpu_is("intel"));
    cr_assert_eq(isa, cpu_isa_present(), "to ask for tiles twice changes nothing");
}
#endif

/* ---- ollama#17916: quotas ------------------------------------------------------------------- */

struct tree {
    char root[64];
};

static void tree_make(struct tree *t)
{
    *t = (struct tree){"/tmp/heed-quota-XXXXXX"};
    cr_assert(mkdtemp(t->root) != NULL);
}

static void tree_drop(struct tree *t)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", t->root);
    cr_assert_eq(system(command), 0);
}

/* root + name holds text; its folders are made. */
static void put(const struct tree *t, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", t->root, name);
    for (char *at = path + strlen(t->root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL, "%s", path);
    fputs(text, file);
    fclose(file);
}

/* Up to four files, in pairs of name and text, the first the process's groups. */
static int32_t quota_of(const char *groups, const char *const files[8])
{
    struct tree t;
    tree_make(&t);
    if (groups) put(&t, "/proc/self/cgroup", groups);
    for (int n = 0; n < 8 && files[n]; n += 2) put(&t, files[n], files[n + 1]);
    const int32_t cpus = cpu_quota(t.root);
    tree_drop(&t);
    return cpus;
}

#define V2_GROUP "0::/system.slice/job\n"
#define V1_GROUPS "12:memory:/docker/1f\n5:cpu,cpuacct:/docker/1f\n4:cpuset:/docker/1f\n1:name=systemd:/docker/1f\n"
static const struct {
    const char *what, *groups, *files[8];
    int32_t cpus;
} quotas[] = {
    {"no /proc/self/cgroup", NULL, {0}, INT32_MAX},
    {"empty /proc/self/cgroup", "", {0}, INT32_MAX},
    {"no files", V2_GROUP, {0}, INT32_MAX},
    {"version 2, two CPUs", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "200000 100000\n"}, 2},
    {"version 2, no limit", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "max 100000\n"}, INT32_MAX},
    {"version 2, 2.5 CPUs", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "250000 100000\n"}, 2},
    {"version 2, half a CPU", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "50000 100000\n"}, 1},
    {"version 2, a short period", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "30000 10000\n"}, 3},
    {"version 2, no period", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "400000\n"}, 4},
    {"version 2, the parent has less", V2_GROUP,
     {"/sys/fs/cgroup/system.slice/job/cpu.max", "800000 100000\n", "/sys/fs/cgroup/system.slice/cpu.max", "300000 100000\n"}, 3},
    {"version 2, the parent alone", V2_GROUP, {"/sys/fs/cgroup/system.slice/cpu.max", "300000 100000\n"}, 3},
    {"version 2, a namespace: the mount is the group", "0::/\n", {"/sys/fs/cgroup/cpu.max", "200000 100000\n"}, 2},
    {"version 2, the host's path is not there", "0::/docker/1f\n", {"/sys/fs/cgroup/cpu.max", "200000 100000\n"}, 2},
    {"version 2, a path out of the namespace", "0::/../other\n", {"/sys/fs/cgroup/cpu.max", "200000 100000\n"}, 2},
    {"version 2 beside version 1", "4:memory:/\n0::/job\n", {"/sys/fs/cgroup/unified/job/cpu.max", "500000 100000\n"}, 5},
    {"version 2, garbage", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "many\n"}, INT32_MAX},
    {"version 2, a period of nothing", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "100000 0\n"}, INT32_MAX},
    {"version 2, negative", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "-5 100000\n"}, INT32_MAX},
    {"version 2, an empty file", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", ""}, INT32_MAX},
    {"version 2, more than fits", V2_GROUP, {"/sys/fs/cgroup/system.slice/job/cpu.max", "9223372036854775807 1\n"}, INT32_MAX},
    {"version 1, three CPUs", V1_GROUPS,
     {"/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_quota_us", "300000\n", "/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_period_us", "100000\n"}, 3},
    {"version 1, no limit", V1_GROUPS,
     {"/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_quota_us", "-1\n", "/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_period_us", "100000\n"}, INT32_MAX},
    {"version 1 in a container: the host's path is not there", V1_GROUPS,
     {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n", "/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}, 1},
    {"version 1, no period", V1_GROUPS, {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n"}, INT32_MAX},
    {"version 1, cpuset and cpuacct are no quota", "3:cpuset:/a\n2:cpuacct:/a\n",
     {"/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "100000\n", "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"}, INT32_MAX},
    {"lines that are none", "x\n:\n::\n5\n\n0::/job\n", {"/sys/fs/cgroup/job/cpu.max", "200000 100000\n"}, 2},
};

Test(machine, quotas_of_control_groups)
{
    struct counts counts = {0};
    for (size_t n = 0; n < sizeof quotas / sizeof *quotas; n++) {
        const int32_t cpus = quota_of(quotas[n].groups, quotas[n].files);
        char text[160];
        snprintf(text, sizeof text, "test_machine.c: %s: %d CPUs, should be %d", quotas[n].what, (int)cpus, (int)quotas[n].cpus);
        count_check(&counts, cpus == quotas[n].cpus, text);
    }
    count_end(&counts);
}

/* The pool has one worker per core that may be used, at most the quota; more where somebody asks for more. */
Test(machine, workers_keep_to_cores_and_quota)
{
    struct tree t;
    cpu_set_t before, one;
    const int32_t cores = cpu_physical_cores();
    char path[8192];
    tree_make(&t);
    put(&t, "/proc/self/cgroup", "0::/\n");
    cr_assert_eq(cpu_workers(t.root), cores, "without a quota");
    put(&t, "/sys/fs/cgroup/cpu.max", "100000 100000\n");
    cr_assert_eq(cpu_workers(t.root), 1);
    put(&t, "/sys/fs/cgroup/cpu.max", "999900000 100000\n");
    cr_assert_eq(cpu_workers(t.root), cores, "a quota above the cores");
    cr_assert(sched_getaffinity(0, sizeof before, &before) == 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    cr_assert(sched_setaffinity(0, sizeof one, &one) == 0);
    cr_assert_eq(cpu_workers(t.root), 1, "one processor");
    cr_assert(sched_setaffinity(0, sizeof before, &before) == 0);
    tree_drop(&t);
    memset(path, 'p', sizeof path - 1), path[0] = '/', path[sizeof path - 1] = '\0';
    cr_assert_eq(cpu_quota(path), INT32_MAX, "a path too long for anything");
    heed_context *context = NULL;
    const heed_context_options options = {.struct_size = sizeof options, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT};
    cr_assert_eq(heed_context_create(&options, &context), HEED_OK);
    cr_assert_eq(context->services.threads.workers, cpu_workers(""));
    heed_context_destroy(context);
}
