/* SPDX-License-Identifier: MIT
 * device.c - find devices, read their limits, name their family: the one place that looks at types, vendors and names. Nothing here decides
 * whether a row may run on a device; a right answer does that (probe.c).
 */
#include "cl.h"
#include "../mutant.h"
#include "opencl.h"
#include "../devices.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PLATFORMS = 32, DEVICES = 64 };

/* ---- questions ------------------------------------------------------------- */

static heed_status ask(cl_device_id id, cl_device_info what, size_t size, void *to, const char *name)
{
    const cl_int code = clGetDeviceInfo(id, what, size, to, NULL);
    if (code == CL_SUCCESS) return HEED_OK;
    memset(to, 0, size);
    return fail(HEED_DEVICE_FAILED, "clGetDeviceInfo(%s): %s", name, cl_error_name(code));
}
#define ASK(id, what, to) ask((id), (what), sizeof *(to), (to), #what)

/* Text of a device or platform, cut to capacity, without blanks around it; "" where the driver does not answer. */
static void tidy(char *text, size_t capacity)
{
    text[capacity - 1] = '\0';
    size_t length = strlen(text), begin = 0;
    while (length > 0 && (unsigned char)text[length - 1] <= ' ') text[--length] = '\0';
    while (text[begin] == ' ') begin++;
    memmove(text, text + begin, length - begin + 1);
}

static void device_text(cl_device_id id, cl_device_info what, char *text, size_t capacity)
{
    char long_text[1024] = "";
    size_t size = 0;
    text[0] = '\0';
    if (clGetDeviceInfo(id, what, 0, NULL, &size) != CL_SUCCESS || size == 0 || size > sizeof long_text) return;
    if (clGetDeviceInfo(id, what, size, long_text, NULL) != CL_SUCCESS) return;
    tidy(long_text, sizeof long_text);
    snprintf(text, capacity, "%.*s", (int)capacity - 1, long_text);
}

static void platform_text(cl_platform_id platform, cl_platform_info what, char *text, size_t capacity)
{
    char long_text[1024] = "";
    size_t size = 0;
    text[0] = '\0';
    if (clGetPlatformInfo(platform, what, 0, NULL, &size) != CL_SUCCESS || size == 0 || size > sizeof long_text) return;
    if (clGetPlatformInfo(platform, what, size, long_text, NULL) != CL_SUCCESS) return;
    tidy(long_text, sizeof long_text);
    snprintf(text, capacity, "%.*s", (int)capacity - 1, long_text);
}

/* Extension lists may be longer than any fixed text. */
static bool has_extension(cl_device_id id, const char *name)
{
    size_t size = 0;
    if (clGetDeviceInfo(id, CL_DEVICE_EXTENSIONS, 0, NULL, &size) != CL_SUCCESS || size == 0 || size > 1u << 20) return false;
    char *list = calloc(size + 1, 1);
    bool found = false;
    if (list && clGetDeviceInfo(id, CL_DEVICE_EXTENSIONS, size, list, NULL) == CL_SUCCESS) {
        const size_t length = strlen(name);
        for (const char *at = list; !found && (at = strstr(at, name)); at += length)
            found = (at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0');
    }
    free(list);
    return found;
}

/* ---- families ---------------------------------------------------------------- */

static bool mentions(const char *text, const char *part) { return strstr(text, part) != NULL; }

/* Oclgrind says that it is every type at once: an interpreter that looks for bugs, taken only when asked for by name. */
static bool is_simulator(const struct cl_device *device)
{
    return (device->type & CL_DEVICE_TYPE_CPU) && (device->type & CL_DEVICE_TYPE_GPU);
}

static enum cl_family family_of(const struct cl_device *device, const char *vendor, cl_uint vendor_id)
{
    const bool pocl = mentions(device->version_text, "PoCL") || mentions(device->version_text, "pocl");
    if (device->type & CL_DEVICE_TYPE_CPU) /* Intel's own runtime: others on its processors say "GenuineIntel", or Mesa */
        return pocl ? FAMILY_POCL_CPU : mentions(vendor, "Intel(R)") ? FAMILY_INTEL_CPU : FAMILY_GENERIC_CPU;
    if (pocl) return FAMILY_GENERIC_GPU; /* its compiler is not the vendor's */
    if (vendor_id == 0x10de || mentions(vendor, "NVIDIA")) return FAMILY_NVIDIA;
    if (vendor_id == 0x1002 || mentions(vendor, "AMD") || mentions(vendor, "Advanced Micro")) return FAMILY_AMD;
    if (vendor_id == 0x8086 || mentions(vendor, "Intel")) return FAMILY_INTEL;
    if (vendor_id == 0x5143 || mentions(vendor, "QUALCOMM") || mentions(vendor, "Qualcomm")) return FAMILY_ADRENO;
    if (vendor_id == 0x13b5 || mentions(vendor, "ARM")) return FAMILY_MALI;
    return FAMILY_GENERIC_GPU;
}

/* Vector registers of a CPU device: what decides the register tile. OpenCL does not tell, so by native width and by what we run on. */
static cl_uint registers_of(const struct cl_device *device)
{
#if defined(__aarch64__) || defined(__riscv)
    (void)device;
    return 32;
#else
    return device->native_width >= 16 ? 32 : 16;
#endif
}

/* ---- reading one device --------------------------------------------------------- */

/* "OpenCL 3.0 PoCL HSTR: ..." -> 300. */
static int version_number(const char *text)
{
    int major = 0, minor = 0;
    if (sscanf(text, "OpenCL %d.%d", &major, &minor) != 2 || major < 0 || major > 99 || minor < 0 || minor > 9) return 0;
    return major * 100 + minor * 10;
}

static heed_status read_limits(struct cl_device *d)
{
    cl_uint dimensions = 0;
    cl_bool compiler = CL_FALSE, unified = CL_FALSE, available = CL_FALSE, little = CL_FALSE;
    heed_status status = ASK(d->id, CL_DEVICE_TYPE, &d->type);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_MAX_COMPUTE_UNITS, &d->compute_units);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS, &dimensions);
    if (status == HEED_OK && (dimensions < 2 || dimensions > 16))
        return fail(HEED_UNSUPPORTED, "CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS is %u", dimensions);
    size_t sizes[16] = {0};
    if (status == HEED_OK)
        status = ask(d->id, CL_DEVICE_MAX_WORK_ITEM_SIZES, dimensions * sizeof *sizes, sizes, "CL_DEVICE_MAX_WORK_ITEM_SIZES");
    memcpy(d->max_sizes, sizes, sizeof d->max_sizes);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_MAX_WORK_GROUP_SIZE, &d->max_group);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, &d->max_alloc);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_GLOBAL_MEM_SIZE, &d->global_bytes);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_LOCAL_MEM_SIZE, &d->local_bytes);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_ADDRESS_BITS, &d->address_bits);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, &d->native_width);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_COMPILER_AVAILABLE, &compiler);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_AVAILABLE, &available);
    if (status == HEED_OK) status = ASK(d->id, CL_DEVICE_ENDIAN_LITTLE, &little);
    if (status != HEED_OK) return status;
    if (ASK(d->id, CL_DEVICE_HOST_UNIFIED_MEMORY, &unified) != HEED_OK) unified = CL_FALSE;
    if (ASK(d->id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, &d->base_align) != HEED_OK) d->base_align = 1024;
    d->unified = unified && !is_simulator(d);
    cl_bitfield shared = 0; /* CL_DEVICE_SVM_CAPABILITIES of OpenCL 2.0; bit 0: coarse-grained buffers, the least there is */
    d->shares = ASK(d->id, 0x1053, &shared) == HEED_OK && (shared & 1);
    d->registers = registers_of(d);
    d->version = version_number(d->version_text);

    if (!available) return fail(HEED_UNSUPPORTED, "the driver says that the device is not available");
    if (!compiler) return fail(HEED_UNSUPPORTED, "the driver has no compiler");
    if (!little) return fail(HEED_UNSUPPORTED, "big-endian devices are not supported");
    if (d->version < 120) return fail(HEED_UNSUPPORTED, "\"%s\": OpenCL 1.2 is needed", d->version_text);
    /* Answers that no device can mean: a driver that is not to be trusted with more. */
    if (MUTANT(cl_limits_believed)) return HEED_OK;
    if (d->compute_units == 0 || d->compute_units > 1u << 20 || d->max_group == 0 || d->max_group > 1u << 20 || d->max_sizes[0] == 0 ||
        d->max_alloc < 1u << 20 || d->global_bytes < d->max_alloc / 4 || (d->address_bits != 32 && d->address_bits != 64))
        return fail(HEED_UNSUPPORTED,
                    "the driver's limits make no sense: %u compute units, groups of %zu, %llu of %llu bytes, %u address bits",
                    d->compute_units, d->max_group, (unsigned long long)d->max_alloc, (unsigned long long)d->global_bytes, d->address_bits);
    return HEED_OK;
}

/* Do kernels run in this process, on the processor that features.c asked? A simulator's do not, nor those of a device that is only reached through its driver. PoCL says
 * so before the target of its compiler: "OpenCL 3.0 PoCL HSTR: pthread-x86_64-pc-linux-gnu-skylake-avx512". Its compiler is clang as it is, with an assembler behind
 * it; others (Mesa's) end the process at the sight of inline assembly. */
static bool assembles_for_us(const struct cl_device *d)
{
    static const char *const drivers[] = {"HSTR: pthread-x86_64-", "HSTR: basic-x86_64-", "HSTR: cpu-x86_64-", "HSTR: cpu-minimal-x86_64-"};
    if (d->family != FAMILY_POCL_CPU || is_simulator(d)) return false;
    for (size_t n = 0; n < sizeof drivers / sizeof *drivers; n++)
        if (mentions(d->version_text, drivers[n])) return true;
    return false;
}

static uint32_t provides_of(const struct cl_device *d)
{
    uint32_t provides = 0;
    if (d->type & CL_DEVICE_TYPE_CPU) provides |= CL_NEEDS_CPU;
    if (!(d->type & CL_DEVICE_TYPE_CPU) || is_simulator(d)) provides |= CL_NEEDS_GPU;
    if (has_extension(d->id, "cl_khr_fp16")) provides |= CL_NEEDS_HALF;
    if (d->subgroup_words != SUBGROUP_NONE) provides |= CL_NEEDS_SUBGROUPS;
    if (has_extension(d->id, "cl_khr_fp64")) provides |= CL_NEEDS_FP64;
    cl_device_local_mem_type local = 0;
    if (ASK(d->id, CL_DEVICE_LOCAL_MEM_TYPE, &local) == HEED_OK && local == CL_LOCAL) provides |= CL_NEEDS_LOCAL;
    if (d->family == FAMILY_NVIDIA) provides |= CL_NEEDS_NV;
    if (d->matrix != MATRIX_NONE)
        provides |= cl_layout(d) == MATRIX_NV_MMA ? CL_NEEDS_MATRIX : cl_layout(d) == MATRIX_NV_WGMMA ? CL_NEEDS_WARPGROUP : CL_NEEDS_COLUMNS;
    if (d->warpgroup[0] != MATRIX_NONE) provides |= CL_NEEDS_WARPGROUP;
    if ((d->device->context->services.isa & (ISA_AVX512BF16 | ISA_SLOW_DOTS)) == ISA_AVX512BF16 && d->registers >= 32 && assembles_for_us(d)) provides |= CL_NEEDS_DOTS;
    return provides;
}

/* Whether their lanes lie where we think, their probe says. */
static int32_t subgroup_words(const struct cl_device *d)
{
    if (d->tuning->group_emulated) return SUBGROUP_EMULATED;
    if (has_extension(d->id, "cl_intel_subgroups")) return SUBGROUP_INTEL;
    return has_extension(d->id, "cl_khr_subgroups") && has_extension(d->id, "cl_khr_subgroup_shuffle") ? SUBGROUP_KHRONOS : SUBGROUP_NONE;
}

/* The smallest sub-group: the one that has DPAS. With a larger one its built-ins build, too, without the instruction. */
static size_t least_lanes(const struct cl_device *d)
{
    size_t sizes[16] = {0}, length = 0, least = SIZE_MAX;
    if (clGetDeviceInfo(d->id, 0x4108 /* CL_DEVICE_SUB_GROUP_SIZES_INTEL */, sizeof sizes, sizes, &length) != CL_SUCCESS) return 0;
    for (size_t n = 0; n < length / sizeof *sizes && n < sizeof sizes / sizeof *sizes; n++)
        if (sizes[n] < least) least = sizes[n];
    return least;
}

/* May this unit be tried? A vendor's words are never shown to another vendor's compiler, because a driver may take any text at build time and die of it
 * at run time. Whether the unit is there and works, its probe says (unit.c). */
static bool may_have(const struct cl_device *d, enum cl_matrix unit)
{
    enum { COMPUTE_CAPABILITY_MAJOR = 0x4000 }; /* cl_nv_device_attribute_query */
    cl_uint major = 0;
    switch (unit) {
    case MATRIX_EMULATED: return d->tuning->matrix == MATRIX_EMULATED && d->address_bits == 64;
    case MATRIX_NV_MMA:
        return d->family == FAMILY_NVIDIA && d->address_bits == 64 && ASK(d->id, COMPUTE_CAPABILITY_MAJOR, &major) == HEED_OK && major >= 8;
    case MATRIX_NV_WGMMA: /* Hopper alone */
        return d->matrix == MATRIX_NV_MMA && ASK(d->id, COMPUTE_CAPABILITY_MAJOR, &major) == HEED_OK && major == 9;
    case MATRIX_AMD_WMMA3:
    case MATRIX_AMD_WMMA4:
    case MATRIX_AMD_MFMA: return d->family == FAMILY_AMD;
    case MATRIX_INTEL_DPAS8:
    case MATRIX_INTEL_DPAS16:
        return d->family == FAMILY_INTEL && has_extension(d->id, "cl_intel_subgroup_matrix_multiply_accumulate") &&
               has_extension(d->id, "cl_intel_required_subgroup_size") && least_lanes(d) == (unit == MATRIX_INTEL_DPAS8 ? 8 : 16);
    default: return false;
    }
}

/* The units to be tried, by the tuning line: one, or all that the family may have. Best first: the wrong one does not build, or gives wrong numbers. */
static void list_units(struct cl_device *d)
{
    static const enum cl_matrix all[] = {MATRIX_NV_MMA, MATRIX_AMD_MFMA, MATRIX_AMD_WMMA4, MATRIX_AMD_WMMA3, MATRIX_INTEL_DPAS16, MATRIX_INTEL_DPAS8};
    const int32_t wanted = d->tuning->matrix;
    int count = 0;
    if (wanted == MATRIX_EMULATED && may_have(d, MATRIX_EMULATED)) d->units[count++] = MATRIX_EMULATED;
    for (size_t n = 0; n < sizeof all / sizeof *all && count < CL_UNITS - 1; n++)
        if ((wanted == MATRIX_FAMILY || wanted == (int32_t)all[n]) && may_have(d, all[n])) d->units[count++] = all[n];
    d->matrix = d->units[0];
    if (d->matrix == MATRIX_EMULATED ? cl_layout(d) == MATRIX_NV_WGMMA : may_have(d, MATRIX_NV_WGMMA)) d->warpgroup[0] = MATRIX_NV_WGMMA;
}

/* Everything that can be known without a context. Never fails: a device that cannot be used is listed with the reason. */
static void read_device(struct cl_device *d, heed_device_info *info)
{
    char vendor[64];
    cl_uint vendor_id = 0;
    device_text(d->id, CL_DEVICE_NAME, info->name, sizeof info->name);
    device_text(d->id, CL_DEVICE_VENDOR, vendor, sizeof vendor);
    device_text(d->id, CL_DRIVER_VERSION, d->driver, sizeof d->driver);
    device_text(d->id, CL_DEVICE_VERSION, d->version_text, sizeof d->version_text);
    platform_text(d->platform, CL_PLATFORM_NAME, info->platform, sizeof info->platform);
    snprintf(info->vendor, sizeof info->vendor, "%s", vendor);
    snprintf(info->driver, sizeof info->driver, "%.*s", (int)sizeof info->driver - 1, d->driver);
    if (ASK(d->id, CL_DEVICE_VENDOR_ID, &vendor_id) != HEED_OK) vendor_id = 0;

    const heed_status status = read_limits(d);
    d->family = family_of(d, vendor, vendor_id);
    d->own_tuning = *cl_tuning_of(d->family);
    cl_tuning_read(&d->device->context->services, info->name, &d->own_tuning);
    if (d->own_tuning.local_kib) d->local_bytes = (cl_ulong)d->own_tuning.local_kib << 10;
    d->tuning = &d->own_tuning;
    d->own_cache = d->tuning->own_cache || mentions(info->platform, "rusticl");
    list_units(d);
    d->subgroup_words = subgroup_words(d);
    d->provides = provides_of(d);
    info->compute_units = (int32_t)d->compute_units;
    info->memory_bytes = d->global_bytes;
    for (int type = HEED_F32; type <= HEED_F8_E5M2; type++) info->types |= UINT64_C(1) << type;
    snprintf(info->family, sizeof info->family, "%s", d->tuning->family);
    snprintf(info->matrix_unit, sizeof info->matrix_unit, "none");
    info->usable = status == HEED_OK;
    if (status != HEED_OK) snprintf(info->reason, sizeof info->reason, "%.255s", heed_error_message());
}

/* GPUs first, then accelerators, then CPUs, then simulators. */
static int rank_of(const struct cl_device *d)
{
    if (is_simulator(d)) return 4;
    if (d->type & CL_DEVICE_TYPE_GPU) return 0;
    if (d->type & CL_DEVICE_TYPE_ACCELERATOR) return 1;
    return d->type & CL_DEVICE_TYPE_CPU ? 2 : 3;
}

/* ---- making and freeing ------------------------------------------------------------ */

static void *shadow_alloc(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void shadow_free(void *user, void *block)
{
    (void)user;
    free(block);
}

/* What a probe's thread works with: nothing of the context, which it may outlive. */
static bool make_shadow(struct cl_device *d, const struct services *services)
{
    char platform_version[512];
    snprintf(d->name, sizeof d->name, "%s", d->device->info.name);
    d->services.allocator = (heed_allocator){NULL, shadow_alloc, shadow_free};
    d->services.flags = services->flags;
    d->services.isa = services->isa;
    if (services->cache_dir && !(d->services.cache_dir = strdup(services->cache_dir))) return false;
    d->shadow_context.services = d->services;
    d->shadow_context.pid = d->pid;
    d->shadow = *d->device;
    d->shadow.context = &d->shadow_context;
    platform_text(d->platform, CL_PLATFORM_VERSION, platform_version, sizeof platform_version);
    cl_identity(d, &d->device->info, platform_version);
    return true;
}

/* The state alone, when nothing of OpenCL may be called any more or nothing was made. */
static void state_free(struct cl_device *d)
{
    pthread_mutex_destroy(&d->lock);
    pthread_mutex_destroy(&d->admission);
    cl_bell_destroy(&d->bell);
    free(d->services.cache_dir);
    free(d);
}

static struct device *device_make(struct heed_context *context, cl_platform_id platform, cl_device_id id)
{
    const struct services *services = &context->services;
    struct device *device = device_new(context, &opencl_backend);
    struct cl_device *d = device ? calloc(1, sizeof *d) : NULL; /* malloc's: may outlive the context with a probe that does not end */
    if (!d) {
        memory_delete(services, device);
        return NULL;
    }
    device->state = d;
    d->device = device;
    d->platform = platform;
    d->id = id;
    d->pid = (int)getpid();
    atomic_init(&d->lost, 0);
    atomic_init(&d->failed_waits, 0);
    atomic_init(&d->probing, 0);
    atomic_init(&d->kernel_group, SIZE_MAX);
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->admission, NULL);
    cl_bell_init(&d->bell);
    read_device(d, &device->info);
    if (!make_shadow(d, services)) {
        state_free(d);
        memory_delete(services, device);
        return NULL;
    }
    const int rank = rank_of(d);
    device->automatic = rank < 2;
    return device;
}

bool cl_device_forked(const struct cl_device *d) { return d->pid != (int)getpid() && !MUTANT(cl_fork_unseen); }

/* Probes that overran their limit end by themselves; we wait a little, then leave to them what they still use. */
static bool probes_ended(struct cl_device *d)
{
    for (int i = 0; i < 200 && atomic_load(&d->probing) > 0; i++) nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    return atomic_load(&d->probing) == 0;
}

void opencl_device_release(struct device *device)
{
    struct cl_device *d = cl_device_of(device);
    if (!d) return;
    device->state = NULL;
    if (cl_device_forked(d)) return; /* the parent's objects: a call might wait for threads that this process does not have */
    if (!probes_ended(d)) return;
    if (d->queue && !atomic_load(&d->lost)) clFinish(d->queue);
    if (!cl_bell_silent(&d->bell, atomic_load(&d->lost) ? 0.1 : 2)) return; /* a command that hangs may yet call back */
    cl_verdicts_release(d);
    cl_programs_release(d);
    if (d->dummy) clReleaseMemObject(d->dummy);
    if (d->no_items) clReleaseMemObject(d->no_items);
    if (d->queue) clReleaseCommandQueue(d->queue);
    if (d->context && MUTANT(cl_release_twice)) clReleaseContext(d->context);
    if (d->context) clReleaseContext(d->context);
    if (d->borrowed) clReleaseDevice(d->id);
    state_free(d);
}

/* ---- listing -------------------------------------------------------------------------- */

struct found {
    struct device *device;
    int order; /* of the loader, so that sorting is stable */
};

static int compare_found(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    const struct cl_device *p = cl_device_of(x->device), *q = cl_device_of(y->device);
    const int ranks = rank_of(p) - rank_of(q);
    if (ranks) return ranks;
    if (p->compute_units != q->compute_units) return p->compute_units < q->compute_units ? 1 : -1;
    return x->order - y->order;
}

/* Appends the devices of one platform; a platform that fails or has none adds nothing. */
static heed_status list_platform(struct heed_context *context, cl_platform_id platform, struct found *found, int *count)
{
    cl_device_id ids[DEVICES];
    cl_uint devices = 0;
    const cl_int code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, DEVICES, ids, &devices);
    if (code == CL_DEVICE_NOT_FOUND) return HEED_OK;
    if (code != CL_SUCCESS) {
        log_line(&context->services, 1, "a platform was left out: clGetDeviceIDs: %s", cl_error_name(code));
        return HEED_OK;
    }
    for (cl_uint i = 0; i < devices && i < DEVICES && *count < DEVICES; i++) {
        struct device *device = device_make(context, platform, ids[i]);
        if (!device) return out_of_memory(sizeof *device);
        found[*count] = (struct found){device, *count};
        ++*count;
    }
    return HEED_OK;
}

static void drop_found(struct heed_context *context, struct device *device)
{
    state_free(cl_device_of(device));
    memory_delete(&context->services, device);
}

heed_status opencl_list_devices(struct heed_context *context)
{
    cl_platform_id platforms[PLATFORMS];
    cl_uint platform_count = 0;
    struct found found[DEVICES];
    int count = 0, taken = 0;
    if (context->pid != (int)getpid()) return fail(HEED_FORKED, "this context was made before fork(): its child has no OpenCL devices");
    const cl_int code = clGetPlatformIDs(PLATFORMS, platforms, &platform_count);
    if (code == -1001 /* CL_PLATFORM_NOT_FOUND_KHR */ || (code == CL_SUCCESS && platform_count == 0)) return HEED_OK;
    if (code != CL_SUCCESS) return fail(HEED_DEVICE_FAILED, "clGetPlatformIDs: %s", cl_error_name(code));
    heed_status status = HEED_OK;
    for (cl_uint i = 0; i < platform_count && i < PLATFORMS && status == HEED_OK; i++)
        status = list_platform(context, platforms[i], found, &count);
    qsort(found, (size_t)count, sizeof *found, compare_found);
    while (taken < count && status == HEED_OK) {
        status = device_append(context, found[taken].device);
        if (status == HEED_OK) taken++;
    }
    while (taken < count) drop_found(context, found[taken++].device);
    return status;
}

/* ---- the caller's own ---------------------------------------------------------------------- */

static heed_status context_holds(cl_context cl, cl_device_id id)
{
    size_t size = 0;
    cl_device_id ids[DEVICES];
    heed_status status = CL(NULL, clGetContextInfo(cl, CL_CONTEXT_DEVICES, 0, NULL, &size));
    if (status == HEED_OK && size > sizeof ids) return fail(HEED_UNSUPPORTED, "the cl_context has %zu devices", size / sizeof *ids);
    if (status == HEED_OK) status = CL(NULL, clGetContextInfo(cl, CL_CONTEXT_DEVICES, size, ids, NULL));
    if (status != HEED_OK) return fail(HEED_INVALID_ARGUMENT, "cl is no usable cl_context: %s", heed_error_message());
    for (size_t i = 0; i < size / sizeof *ids; i++)
        if (ids[i] == id) return HEED_OK;
    return fail(HEED_INVALID_ARGUMENT, "the device does not belong to the cl_context");
}

heed_status opencl_add_device(struct heed_context *context, void *cl, void *id, int32_t *index)
{
    cl_platform_id platform = NULL;
    if (context->pid != (int)getpid()) return fail(HEED_FORKED, "this context was made before fork()");
    heed_status status = context_holds(cl, id);
    if (status == HEED_OK && ask(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, "CL_DEVICE_PLATFORM") != HEED_OK)
        status = HEED_DEVICE_FAILED;
    if (status != HEED_OK) return status;
    struct device *device = device_make(context, platform, id);
    if (!device) return out_of_memory(sizeof *device);
    struct cl_device *d = cl_device_of(device);
    status = CL(d, clRetainContext(cl));
    if (status == HEED_OK) {
        d->context = cl;
        status = CL(d, clRetainDevice(id));
        d->borrowed = status == HEED_OK;
    }
    device->automatic = false; /* lent for plans that name it */
    pthread_mutex_lock(&context->lock);
    if (status == HEED_OK) status = device_append(context, device);
    if (status == HEED_OK) *index = context->device_count - 1;
    pthread_mutex_unlock(&context->lock);
    if (status == HEED_OK) return HEED_OK;
    opencl_device_release(device);
    memory_delete(&context->services, device);
    return status;
}

/* ---- opening --------------------------------------------------------------------------------- */

heed_status cl_device_alive(struct cl_device *d)
{
    if (cl_device_forked(d))
        return fail(HEED_FORKED, "device %s belongs to a context made before fork(); make a new context in the child", d->name);
    const int code = atomic_load(&d->lost);
    if (code == 0 || MUTANT(cl_lost_asked)) return HEED_OK;
    return fail(HEED_DEVICE_FAILED, "device %s was lost (%s) and is not used again by this context", d->name, cl_error_name(code));
}

/* Context, queue and the dummy for absent tensors. Called with the lock held. */
static heed_status open_locked(struct cl_device *d)
{
    cl_int code = CL_SUCCESS;
    if (!d->context) {
        const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)d->platform, 0};
        d->context = clCreateContext(properties, 1, &d->id, NULL, NULL, &code);
        if (!d->context) return cl_failed(d, "clCreateContext", code);
    }
    if (!d->queue) {
        d->queue = clCreateCommandQueue(d->context, d->id, 0, &code);
        if (!d->queue) return cl_failed(d, "clCreateCommandQueue", code);
    }
    if (!d->dummy) {
        float ones[CL_DUMMY_BYTES / sizeof(float)]; /* an absent scale reads as 1 */
        for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) ones[i] = MUTANT(cl_absent_scale) ? 2.0f : 1.0f;
        d->dummy = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, sizeof ones, ones, &code);
        if (!d->dummy) return cl_failed(d, "clCreateBuffer(dummy)", code);
    }
    if (!d->no_items) {
        int32_t zeros[32] = {0};
        d->no_items = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, sizeof zeros, zeros, &code);
        if (!d->no_items) return cl_failed(d, "clCreateBuffer(no_items)", code);
    }
    d->opened = true;
    return HEED_OK;
}

heed_status cl_device_open(struct cl_device *d)
{
    heed_status status = cl_device_alive(d);
    if (status != HEED_OK) return status;
    pthread_mutex_lock(&d->lock);
    if (!d->opened) status = open_locked(d);
    pthread_mutex_unlock(&d->lock);
    return status;
}
