/* SPDX-License-Identifier: MIT
 * tool.c - a context for the command, the devices chosen by word, and the way from a status to an exit code.
 */
#include "tool.h"
#include "options.h" /* of the library: HEED_DEVICE is read in one room only */
#include "registry.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int exit_of(heed_status status)
{
    switch (status) {
    case HEED_OK: return EXIT_OK;
    case HEED_MISMATCH: return EXIT_CHECK_FAILED;
    case HEED_INVALID_ARGUMENT:
    case HEED_OUT_OF_BOUNDS:
    case HEED_UNSUPPORTED: return EXIT_USAGE;
    case HEED_DEVICE_NOT_FOUND: return EXIT_NO_DEVICE;
    default: return EXIT_BROKEN;
    }
}

int tool_fail(heed_status status, const char *what)
{
    fprintf(stderr, "heed: %s: %s: %s\n", what, heed_status_string(status), heed_error_message());
    return exit_of(status);
}

int out_of_room(void)
{
    fputs("heed: out of memory\n", stderr);
    return EXIT_BROKEN;
}

static void say(void *user, int32_t level, const char *line)
{
    (void)user;
    fprintf(stderr, "heed: %s%s\n", level == 0 ? "error: " : level == 1 ? "warning: " : "", line);
}

/* With --kernel, "all" are the devices whose wing has that row. */
static int find_devices(struct tool *tool, const char *name)
{
    if (strcmp(name, "all")) {
        const heed_status status = heed_device_find(tool->context, name, &tool->devices[0]);
        tool->device_count = 1;
        return status == HEED_OK ? 0 : tool_fail(status, tool->options->device ? "--device" : "HEED_DEVICE");
    }
    const int32_t count = heed_device_count(tool->context);
    for (int32_t n = 0; n < count && n < MAX_DEVICES; n++)
        if (!tool->options->kernel || kernel_of_device(tool->options->kernel, n)) tool->devices[tool->device_count++] = n;
    return 0;
}

int tool_open(struct tool *tool, const struct options *options, const char *fallback)
{
    memset(tool, 0, sizeof *tool);
    tool->options = options;
    heed_context_options given = {.struct_size = sizeof given, .num_threads = options->threads, .log = say};
    const heed_status status = heed_context_create(&given, &tool->context);
    if (status != HEED_OK) return tool_fail(status, "no context");
    const char *name = options->device;
    if (!name) name = options_device(&tool->context->services);
    const int code = find_devices(tool, name ? name : fallback);
    if (code) tool_close(tool);
    return code;
}

void tool_close(struct tool *tool)
{
    heed_context_destroy(tool->context);
    tool->context = NULL;
}

const char *backend_name(heed_backend backend)
{
    return backend == HEED_BACKEND_CPU ? "cpu" : "opencl";
}

void device_label(struct tool *tool, int32_t device, char *label, size_t capacity)
{
    heed_device_info info = {.struct_size = sizeof info};
    if (device == 0 || heed_device_get_info(tool->context, device, &info) != HEED_OK) snprintf(label, capacity, "cpu");
    else snprintf(label, capacity, "opencl:%d %s", (int)device - 1, info.family);
}

static bool row_known(const struct backend *backend, const char *name)
{
    for (int32_t n = 0; registry_row(backend, n); n++)
        if (!strcmp(registry_row(backend, n)->name, name)) return true;
    return false;
}

bool kernel_of_device(const char *name, int32_t device)
{
    if (device == 0) return row_known(&cpu_backend, name);
#ifdef HEED_OPENCL
    return row_known(&opencl_backend, name);
#else
    return false;
#endif
}

bool kernel_known(const char *name)
{
    if (kernel_of_device(name, 0) || kernel_of_device(name, 1)) return true;
    fprintf(stderr, "heed: no row of the table is called %s; there are:", name);
    for (int32_t n = 0; registry_row(&cpu_backend, n); n++) fprintf(stderr, " %s", registry_row(&cpu_backend, n)->name);
#ifdef HEED_OPENCL
    for (int32_t n = 0; registry_row(&opencl_backend, n); n++) fprintf(stderr, " %s", registry_row(&opencl_backend, n)->name);
#endif
    fputc('\n', stderr);
    return false;
}

bool problem_read(const char *text, struct problem_line *line)
{
    char message[256];
    if (line_parse(text, line, message, sizeof message) && line_possible(line, message, sizeof message)) return true;
    fprintf(stderr, "heed: \"%s\": %s\n", text, message);
    return false;
}

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
