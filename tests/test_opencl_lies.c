/* SPDX-License-Identifier: MIT
 * test_opencl_lies.c - a driver that says what is not so, by the layer of fault_layer.c: garbage from its queries, limits of a kernel far below the
 * device's, another version than yesterday. The answer is right, or the device or the row is refused with a reason; nothing old is used.
 */
#include "fault_rig.h"
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

static void lie(struct fault_state *f, const char *entry, unsigned what, enum fault_lie how, unsigned long value, const char *text)
{
    atomic_store(&f->lie, LIE_NONE);
    snprintf(f->lie_entry, sizeof f->lie_entry, "%s", entry);
    snprintf(f->lie_text, sizeof f->lie_text, "%s", text);
    f->lie_what = what;
    f->lie_value = value;
    atomic_store(&f->lies, 0);
    atomic_store(&f->lie, how);
}

static void truth(struct fault_state *f) { atomic_store(&f->lie, LIE_NONE); }

/* The layer, unless this machine's loader takes none or it has no device. */
static struct fault_state *layer_or_skip(void)
{
    struct fault_state *f = layer();
    heed_context *context = plain_context(0);
    arm(f, "", 0, 0, false);
    const int32_t device = cl_test_device(context);
    heed_context_destroy(context);
    if (device < 0 || atomic_load(&f->calls) == 0) cr_skip_test("the loader takes no layers, or there is no OpenCL");
    return f;
}

/* A plan on one row, and its answer. */
static void insist(struct rig *r, heed_context *context, int32_t device, const char *kernel)
{
    heed_plan *plan = NULL;
    heed_batch *batch = NULL;
    rig_clear(r);
    cr_assert_eq(heed_plan_create(context, device, &r->desc, kernel, &plan), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_create(plan, &r->lengths, &batch), HEED_OK, "%s", heed_error_message());
    cr_assert_eq(heed_batch_workspace_size(batch), 0, "%s splits nothing", kernel);
    cr_assert_eq(heed_run(plan, batch, &r->tensors, NULL), HEED_OK, "%s", heed_error_message());
    cr_assert(rig_right(r, r->o, r->lse), "%s", kernel);
    heed_batch_destroy(batch);
    heed_plan_destroy(plan);
}

/* ---- KataGo#1221: garbage ------------------------------------------------------------- */

static bool ends(const char *text, size_t capacity) { return memchr(text, '\0', capacity) != NULL; }

/* A context's whole life on what the driver says. */
static void life(struct fault_state *f, struct rig *r, const char *entry, unsigned what, enum fault_lie how)
{
    lie(f, entry, what, how, 0, "");
    heed_context *context = plain_context(0);
    const int32_t count = heed_device_count(context), device = cl_test_device(context);
    for (int32_t n = 0; n < count; n++) {
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, n, &info), HEED_OK);
        cr_assert(ends(info.name, sizeof info.name) && ends(info.vendor, sizeof info.vendor) && ends(info.driver, sizeof info.driver) &&
                  ends(info.platform, sizeof info.platform) && ends(info.reason, sizeof info.reason));
        cr_assert(info.usable || info.reason[0], "%s 0x%x, lie %d: refused without a reason", entry, what, how);
    }
    make_right(r, context, device > 0 ? device : 0, false); /* with the CPU's help, if need be */
    cr_assert(atomic_load(&f->lies) > 0, "%s 0x%x was never asked", entry, what);
    truth(f);
    heed_context_destroy(context);
    nothing_alive(f, entry, (long)what);
}

Test(opencl_lies, garbage_from_every_query, .timeout = 600)
{
    static const unsigned numbers[] = {CL_DEVICE_TYPE, CL_DEVICE_MAX_COMPUTE_UNITS, CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS,
                                       CL_DEVICE_MAX_WORK_ITEM_SIZES, CL_DEVICE_MAX_WORK_GROUP_SIZE, CL_DEVICE_MAX_MEM_ALLOC_SIZE,
                                       CL_DEVICE_GLOBAL_MEM_SIZE, CL_DEVICE_LOCAL_MEM_SIZE, CL_DEVICE_LOCAL_MEM_TYPE, CL_DEVICE_ADDRESS_BITS,
                                       CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, CL_DEVICE_COMPILER_AVAILABLE, CL_DEVICE_AVAILABLE,
                                       CL_DEVICE_ENDIAN_LITTLE, CL_DEVICE_HOST_UNIFIED_MEMORY, CL_DEVICE_MEM_BASE_ADDR_ALIGN,
                                       CL_DEVICE_VENDOR_ID, 0};
    static const unsigned texts[] = {CL_DEVICE_NAME, CL_DEVICE_VENDOR, CL_DRIVER_VERSION, CL_DEVICE_VERSION, CL_DEVICE_EXTENSIONS};
    struct fault_state *f = layer_or_skip();
    struct rig *r = rig_new(5, 21, 40);
    struct rusage usage;
    for (int how = LIE_ZERO; how < LIES; how++) {
        const bool sizes = how == LIE_SIZE_ZERO || how == LIE_SIZE_HUGE, silent = how == LIE_NOTHING; /* beside zeros a matter of who else reads */
        if (how == LIE_VALUE || how == LIE_TEXT) continue;
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers && !sizes; n++)
            if (!silent || n % 4 == 1) life(f, r, "clGetDeviceInfo", numbers[n], how);
        for (size_t n = 0; n < sizeof texts / sizeof *texts; n++) life(f, r, "clGetDeviceInfo", texts[n], how);
        life(f, r, "clGetPlatformInfo", CL_PLATFORM_NAME, how);
        life(f, r, "clGetPlatformInfo", CL_PLATFORM_VERSION, how);
        life(f, r, "clGetPlatformInfo", 0, how);
        if (!sizes) life(f, r, "clGetKernelWorkGroupInfo", 0, how);
    }
    cr_assert_eq(getrusage(RUSAGE_SELF, &usage), 0);
    cr_assert_lt(usage.ru_maxrss, 2000000, "%ld kB were in memory at once", usage.ru_maxrss);
    rig_free(r);
}

/* Where no device can mean it, the device is refused for that, and not for what a compiler says later. */
Test(opencl_lies, limits_without_sense)
{
    static const struct {
        unsigned what;
        enum fault_lie how;
    } each[] = {{CL_DEVICE_MAX_COMPUTE_UNITS, LIE_ZERO}, {CL_DEVICE_MAX_COMPUTE_UNITS, LIE_ONES}, {CL_DEVICE_MAX_WORK_GROUP_SIZE, LIE_ZERO},
                {CL_DEVICE_MAX_WORK_GROUP_SIZE, LIE_ONES}, {CL_DEVICE_MAX_WORK_ITEM_SIZES, LIE_ZERO}, {CL_DEVICE_MAX_MEM_ALLOC_SIZE, LIE_ZERO},
                {CL_DEVICE_GLOBAL_MEM_SIZE, LIE_ZERO}, {CL_DEVICE_ADDRESS_BITS, LIE_ZERO}, {CL_DEVICE_ADDRESS_BITS, LIE_ONES}};
    struct fault_state *f = layer_or_skip();
    for (size_t n = 0; n < sizeof each / sizeof *each; n++) {
        lie(f, "clGetDeviceInfo", each[n].what, each[n].how, 0, "");
        heed_context *context = plain_context(0);
        cr_assert_eq(cl_test_device(context), -1, "0x%x, lie %d: a device is usable", each[n].what, each[n].how);
        heed_device_info info = {.struct_size = sizeof info};
        cr_assert_eq(heed_device_get_info(context, 1, &info), HEED_OK);
        cr_assert(strstr(info.reason, "make no sense") || strstr(info.reason, "OpenCL 1.2"), "%s", info.reason);
        truth(f);
        heed_context_destroy(context);
    }
}

/* ---- lc0#513: limits of a kernel ---------------------------------------------------------- */

/* Rows whose groups are larger than the kernel's limit say so with both numbers, in heed info too; opencl.naive is built again with smaller groups;
 * what is left answers without the CPU's help. */
static void limited_by_kernels(struct fault_state *f, size_t limit)
{
    struct rig *r = rig_new(5, 21, 41);
    heed_context *context = plain_context(HEED_NO_FALLBACK);
    const int32_t device = cl_test_device(context);
    struct device *inside;
    struct problem problem;
    int refused = 0;
    lie(f, "clGetKernelWorkGroupInfo", CL_KERNEL_WORK_GROUP_SIZE, LIE_VALUE, limit, "");
    cr_assert_eq(device_get(context, device, &inside), HEED_OK);
    cr_assert_eq(problem_from_desc(&r->desc, &problem), HEED_OK);
    for (const struct kernel_row *row = cl_rows; row->name; row++) {
        char reason[256] = "", want[64];
        size_t local[2];
        if (!(row->kinds & (KIND_BIT(KIND_PREFILL) | KIND_BIT(KIND_DECODE))) || !(row->k_types >> problem.k_type & 1)) continue;
        const enum kind kind = row->kinds & KIND_BIT(KIND_PREFILL) ? KIND_PREFILL : KIND_DECODE;
        cl_local(cl_device_of(inside), row, &problem, local);
        const heed_status status = cl_admit(inside, &problem, row, kind, reason, sizeof reason);
        if (status == HEED_UNSUPPORTED && !strncmp(reason, "needs ", 6)) continue; /* for another type of device */
        snprintf(want, sizeof want, "takes groups of %zu work-items, %zu are needed", limit, local[0] * local[1]);
        if (local[0] * local[1] <= limit || row->cl->shrinks) {
            cr_assert_eq(status, HEED_OK, "%s with a limit of %zu: %s", row->name, limit, reason);
        } else {
            cr_assert(status == HEED_UNSUPPORTED && strstr(reason, want), "%s with a limit of %zu: %s", row->name, limit, reason);
            cr_assert(strstr(inside->info.reason, row->name), "heed info does not show it: %s", inside->info.reason);
            refused++;
        }
    }
    cr_assert(refused > 0 || limit > 16, "no row has groups of more than %zu", limit);
    make_right(r, context, device, false);
    insist(r, context, device, "opencl.naive");
    truth(f);
    heed_context_destroy(context);
    nothing_alive(f, "limit", (long)limit);
    rig_free(r);
}

Test(opencl_lies, limits_of_a_kernel, .timeout = 300)
{
    struct fault_state *f = layer_or_skip();
    static const size_t limits[] = {1, 16, 64};
    for (int n = 0; n < 3; n++) limited_by_kernels(f, limits[n]);
}

/* The same said of the device. */
Test(opencl_lies, limits_of_a_device, .timeout = 300)
{
    struct fault_state *f = layer_or_skip();
    struct rig *r = rig_new(5, 21, 42);
    static const size_t limits[] = {1, 16, 64};
    for (int n = 0; n < 3; n++) {
        lie(f, "clGetDeviceInfo", CL_DEVICE_MAX_WORK_GROUP_SIZE, LIE_VALUE, limits[n], "");
        heed_context *context = plain_context(HEED_NO_FALLBACK);
        const int32_t device = cl_test_device(context);
        cr_assert_gt(device, 0);
        make_right(r, context, device, false);
        insist(r, context, device, "opencl.naive");
        truth(f);
        heed_context_destroy(context);
    }
    rig_free(r);
}

/* ---- compute-runtime#125: another driver than yesterday --------------------------------------- */

static int files_of(const char *path, const char *suffix)
{
    DIR *entries = opendir(path);
    const struct dirent *entry;
    int count = 0;
    while (entries && (entry = readdir(entries))) {
        const char *end = strrchr(entry->d_name, '.');
        count += end && !strcmp(end, suffix);
    }
    if (entries) closedir(entries);
    return count;
}

static void folder_drop(const char *path)
{
    DIR *entries = opendir(path);
    const struct dirent *entry;
    while (entries && (entry = readdir(entries)))
        if (entry->d_name[0] != '.') unlinkat(dirfd(entries), entry->d_name, 0);
    if (entries) closedir(entries);
    rmdir(path);
}

/* What one process after another does with the same cache directory. Launches tell whether rows were probed, sources whether programs were built. */
struct told {
    long launches, sources;
    int verdicts, programs;
};

static struct told start(struct fault_state *f, struct rig *r, const char *cache, bool own_cache)
{
    heed_context *context = cached_context(cache, HEED_NO_FALLBACK);
    const int32_t device = cl_test_device(context);
    const struct kernel_row *row = cl_rows;
    struct device *inside;
    struct problem problem;
    char reason[256] = "";
    cr_assert_eq(device_get(context, device, &inside), HEED_OK, "%s", heed_error_message());
    cl_device_of(inside)->own_cache = own_cache;
    atomic_store(&f->launches, 0), atomic_store(&f->sources, 0);
    while (strcmp(row->name, "opencl.merge")) row++; /* of one of the smallest programs */
    cr_assert_eq(problem_from_desc(&r->desc, &problem), HEED_OK);
    cr_assert_eq(cl_admit(inside, &problem, row, KIND_MERGE, reason, sizeof reason), HEED_OK, "%s", reason);
    const struct told told = {atomic_load(&f->launches), atomic_load(&f->sources), files_of(cache, ".verdict"), files_of(cache, ".program")};
    heed_context_destroy(context);
    return told;
}

static void another_driver(bool own_cache)
{
    static const struct {
        const char *entry;
        unsigned what;
        const char *text;
    } changes[] = {{"clGetDeviceInfo", CL_DRIVER_VERSION, "3.2+new"},
                   {"clGetDeviceInfo", CL_DEVICE_VERSION, "OpenCL 3.0 PoCL HSTR: another one"},
                   {"clGetPlatformInfo", CL_PLATFORM_VERSION, "OpenCL 3.0 PoCL 3.1 LLVM 99"}};
    setenv("POCL_KERNEL_CACHE", own_cache ? "1" : "0", 1);
    struct fault_state *f = layer_or_skip();
    struct rig *r = rig_new(5, 21, 43);
    char cache[] = "/tmp/heed-lies-XXXXXX";
    cr_assert(mkdtemp(cache) != NULL);
    const struct told first = start(f, r, cache, own_cache);
    if (!own_cache && first.programs == 0) {
        folder_drop(cache);
        cr_skip_test("a program is built in less than a tenth of a second here, and not kept");
    }
    const struct told again = start(f, r, cache, own_cache);
    cr_assert(again.verdicts == first.verdicts && again.programs == first.programs, "another key in the second process");
    if (own_cache)
        cr_assert_lt(again.launches, first.launches, "the second process probes again");
    else
        cr_assert(first.sources > 0 && again.sources == 0, "%ld, then %ld programs from their source", first.sources, again.sources);
    for (int n = 0; n < (own_cache ? 3 : 1); n++) { /* builds take seconds */
        lie(f, changes[n].entry, changes[n].what, LIE_TEXT, 0, changes[n].text);
        const struct told new = start(f, r, cache, own_cache);
        truth(f);
        cr_assert_eq(new.launches, first.launches, "%s: probed as at first", changes[n].text);
        cr_assert_eq(new.sources, first.sources, "%s: built as at first", changes[n].text);
        cr_assert_eq(new.verdicts, (n + 2) * first.verdicts, "%s: %d verdicts", changes[n].text, new.verdicts);
        cr_assert_eq(new.programs, (n + 2) * first.programs, "%s: %d programs", changes[n].text, new.programs);
    }
    const struct told last = start(f, r, cache, own_cache);
    cr_assert(last.launches == again.launches && last.sources == again.sources, "the old driver is back, and so is what was known of it");
    folder_drop(cache);
    rig_free(r);
}

Test(opencl_lies, verdicts_of_another_driver, .timeout = 300) { another_driver(true); }
Test(opencl_lies, programs_of_another_driver, .timeout = 300) { another_driver(false); }
