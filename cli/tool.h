/* SPDX-License-Identifier: MIT
 * tool.h - what every verb that computes needs first: a context, the chosen devices, and one way to say what went wrong.
 */
#ifndef HEED_CLI_TOOL_H
#define HEED_CLI_TOOL_H

#include "args.h"
#include "harness.h"
#include "internal.h"

enum { MAX_DEVICES = 64 };

struct tool {
    const struct options *options;
    struct heed_context *context;
    int32_t devices[MAX_DEVICES];
    int device_count;
};

/* A context with --threads; its warnings go to standard error. Then the devices of --device, else of HEED_DEVICE, else of `fallback`
 * ("cpu", "all"). 0 or an exit code, told on standard error. */
int tool_open(struct tool *tool, const struct options *options, const char *fallback);
void tool_close(struct tool *tool);

/* Says the library's last message behind `what` on standard error; the exit code for the status. */
int tool_fail(heed_status status, const char *what);
int exit_of(heed_status status);
int out_of_room(void);

const char *backend_name(heed_backend backend); /* "cpu", "opencl" */
/* "cpu", or "opencl:0 nvidia-sm90": number and family, short enough for a table. */
void device_label(struct tool *tool, int32_t device, char *label, size_t capacity);
/* Says so, and which there are, if no row of any backend has this name. */
bool kernel_known(const char *name);
bool kernel_of_device(const char *name, int32_t device);
/* A problem string whose words make sense together; false after a line on standard error. */
bool problem_read(const char *text, struct problem_line *line);
double seconds_now(void);

#endif
