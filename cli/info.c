/* SPDX-License-Identifier: MIT
 * info.c - `heed info`: what this build and this machine offer, and the reason why a device is unusable.
 */
#include "cpu/cpu.h"
#include "table.h"
#include "tool.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const variables[] = {"HEED_DEVICE", "HEED_THREADS", "HEED_CPU",   "HEED_CACHE_DIR",
                                        "HEED_LOG",    "HEED_VALIDATE", "HEED_TUNING", "NO_COLOR"};
enum { VARIABLE_COUNT = sizeof variables / sizeof variables[0] };

static void version_text(char *text, size_t capacity)
{
    const unsigned version = heed_version();
    snprintf(text, capacity, "%u.%u.%u", version / 10000, version / 100 % 100, version % 100);
}

static long level2_kib(void)
{
#ifdef _SC_LEVEL2_CACHE_SIZE
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes > 0 ? bytes / 1024 : 0;
#else
    return 0;
#endif
}

/* Is the bit a set, and one of these? */
static bool has_set(uint32_t isas, uint32_t bit) { return isas & bit & ~(uint32_t)ISA_SLOW_DOTS; }

static json_t *isas_json(uint32_t isas)
{
    json_t *list = json_array();
    for (uint32_t bit = 1; bit; bit <<= 1)
        if (has_set(isas, bit)) json_array_append_new(list, json_string(cpu_isa_name(bit)));
    return list;
}

static json_t *device_json(int32_t index, const heed_device_info *info)
{
    return json_pack("{s:i s:s s:s s:s s:s s:s s:s s:s s:i s:I s:b s:s?}", "index", (int)index, "name", info->name, "backend",
                     backend_name(info->backend), "platform", info->platform, "vendor", info->vendor, "driver", info->driver, "family",
                     info->family, "matrix_unit", info->matrix_unit, "compute_units", (int)info->compute_units, "memory_bytes",
                     (json_int_t)info->memory_bytes, "admitted", (int)info->usable, "reason", *info->reason ? info->reason : NULL);
}

static json_t *environment_json(void)
{
    json_t *environment = json_object();
    for (int n = 0; n < VARIABLE_COUNT; n++) {
        const char *value = getenv(variables[n]);
        json_object_set_new(environment, variables[n], value ? json_string(value) : json_null());
    }
    return environment;
}

static int print_json(const struct tool *tool, json_t *devices)
{
    const struct services *services = &tool->context->services;
    static const struct column none[] = {{0}};
    struct table table;
    char version[32];
    version_text(version, sizeof version);
    if (!table_begin(&table, none, true)) return out_of_room();
    table_text(&table, "version", version);
    table_json(&table, "cpu", json_pack("{s:s s:o s:i s:I}", "isa", cpu_isa_name(services->isa), "isas", isas_json(services->isa), "cores",
                                        (int)cpu_physical_cores(), "l2_kib", (json_int_t)level2_kib()));
    table_count(&table, "threads", services->threads.workers);
    table_text(&table, "cache_dir", services->cache_dir);
    table_json(&table, "devices", devices);
    table_json(&table, "environment", environment_json());
    table_row(&table);
    return table_end(&table) ? EXIT_OK : out_of_room();
}

static void print_device(int32_t index, const heed_device_info *info)
{
    char number[16];
    snprintf(number, sizeof number, index ? "opencl:%d" : "cpu", (int)index - 1);
    printf("%-10s %s%s\n", number, info->name, info->usable ? "" : "   UNUSABLE");
    if (*info->platform) printf("           platform %s, driver %s\n", info->platform, info->driver);
    printf("           family %s, matrix unit %s, %d compute unit%s", info->family, info->matrix_unit, (int)info->compute_units,
           info->compute_units == 1 ? "" : "s");
    if (info->memory_bytes) printf(", %.1f GiB", (double)info->memory_bytes / (1 << 30));
    putchar('\n');
    if (*info->reason) printf("           %s: %s\n", info->usable ? "note" : "reason", info->reason);
}

static void print_text(const struct tool *tool, int32_t opencl_devices)
{
    const struct services *services = &tool->context->services;
    char version[32];
    version_text(version, sizeof version);
    printf("heed %s\ncpu        %s (", version, cpu_isa_name(services->isa));
    bool first = true;
    for (uint32_t bit = 1; bit; bit <<= 1) {
        if (!has_set(services->isa, bit)) continue;
        printf("%s%s", first ? "" : " ", cpu_isa_name(bit));
        first = false;
    }
    const int cores = (int)cpu_physical_cores();
    printf("), %d core%s, %ld KiB L2\nthreads    %d\n", cores, cores == 1 ? "" : "s", level2_kib(), (int)services->threads.workers);
    printf("cache      %s\n", services->cache_dir ? services->cache_dir : "memory only");
    for (int n = 0; n < VARIABLE_COUNT; n++) {
        const char *value = getenv(variables[n]);
        if (value) printf("%-10s %s\n", variables[n], value);
    }
    puts("\ndevices");
    if (opencl_devices == 0) {
#ifdef HEED_OPENCL
        puts("           no OpenCL device: install a driver (Debian: pocl-opencl-icd for the CPU, or the GPU vendor's)");
#else
        puts("           built without OpenCL (HEED_OPENCL=OFF)");
#endif
    }
}

/* A matrix unit is known once a row has worked with it. CPU devices have none. */
static void prove_unit(heed_context *context, int32_t device)
{
    heed_device_info info = {.struct_size = sizeof info};
    heed_desc desc;
    heed_plan *plan = NULL;
    if (heed_device_get_info(context, device, &info) != HEED_OK || !info.usable || info.backend == HEED_BACKEND_CPU || strstr(info.family, "-cpu")) return;
    if (heed_desc_parse("hq1 d64 bf16", &desc) == HEED_OK && heed_plan_create(context, device, &desc, NULL, &plan) == HEED_OK) heed_plan_destroy(plan);
}

int run_info(const struct options *options)
{
    struct tool tool;
    struct options all = *options;
    all.device = "all"; /* HEED_DEVICE does not hide the others here */
    const int code = tool_open(&tool, &all, "all");
    if (code) return code;
    json_t *devices = json_array();
    if (!options->json) print_text(&tool, tool.device_count - 1);
    for (int n = 0; n < tool.device_count; n++) {
        heed_device_info info = {.struct_size = sizeof info};
        prove_unit(tool.context, tool.devices[n]);
        const heed_status status = heed_device_get_info(tool.context, tool.devices[n], &info);
        if (status != HEED_OK) snprintf(info.reason, sizeof info.reason, "%s", heed_error_message());
        if (options->json) json_array_append_new(devices, device_json(tool.devices[n], &info));
        else print_device(tool.devices[n], &info);
    }
    int end = EXIT_OK;
    if (options->json) end = print_json(&tool, devices);
    else json_decref(devices);
    tool_close(&tool);
    return end;
}
