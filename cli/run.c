/* SPDX-License-Identifier: MIT
 * run.c - `heed run`: attention on arrays from files, on one device; prints which rows did it and how long it took.
 */
#include "arrays.h"
#include "schedule.h"
#include "table.h"
#include "tool.h"
#include <string.h>

static const struct column columns[] = {
    {"device", "device", -6, 0}, {"kernel", "kernel", -20, 0}, {"ms", "ms", 9, 3}, {"problem", "problem", -10, 0}, {0}};

/* The row of the plan that does these queries. */
static const char *kernel_name(const struct prepared *prepared, const struct instance *instance)
{
    const enum kind kind = sequence_kind(prepared->plan, instance->line.q_len);
    return prepared->plan->row[kind] ? prepared->plan->row[kind]->name : "none";
}

static int write_results(const struct options *options, const struct arrays *arrays)
{
    if (options->output && !arrays_write(arrays, ROLE_O, options->output)) return EXIT_USAGE;
    if (options->lse && !arrays_write(arrays, ROLE_LSE, options->lse)) return EXIT_USAGE;
    if (options->scores && !arrays_write(arrays, ROLE_SCORES, options->scores)) return EXIT_USAGE;
    return EXIT_OK;
}

/* A first run to warm up (pages, caches, the driver's lazy work), then the one that is timed. */
static heed_status compute(struct tool *tool, struct arrays *arrays, struct table *table)
{
    struct prepared prepared;
    const int32_t device = tool->devices[0];
    heed_status status = prepared_make(tool->context, device, tool->options->kernel, arrays->instance, false, &prepared);
    if (status != HEED_OK) return status;
    status = prepared_run(&prepared);
    const double begin = seconds_now();
    if (status == HEED_OK) status = prepared_run(&prepared);
    const double seconds = seconds_now() - begin;
    if (status == HEED_OK) status = prepared_fetch(&prepared);
    if (status == HEED_OK) {
        char label[64], problem[LINE_BYTES];
        device_label(tool, device, label, sizeof label);
        line_format(&arrays->instance->line, problem, sizeof problem);
        table_text(table, "device", label);
        table_text(table, "kernel", kernel_name(&prepared, arrays->instance));
        table_number(table, "ms", 1e3 * seconds);
        table_text(table, "problem", problem);
        table_row(table);
    }
    prepared_release(&prepared);
    return status;
}

int run_run(const struct options *options)
{
    struct arrays arrays;
    struct tool tool;
    struct table table;
    char extra[64];
    snprintf(extra, sizeof extra, "%s%s", options->lse ? " lse" : "", options->scores ? " scores=3" : "");
    if (!arrays_read(options, extra, &arrays)) return EXIT_USAGE;
    int code = tool_open(&tool, options, "cpu");
    if (code == 0 && tool.device_count != 1) {
        fputs("heed run: one device, not all\n", stderr);
        code = EXIT_USAGE;
        tool_close(&tool);
    }
    if (code) {
        arrays_free(&arrays);
        return code;
    }
    if (table_begin(&table, columns, options->json)) {
        const heed_status status = compute(&tool, &arrays, &table);
        code = status == HEED_OK ? write_results(options, &arrays) : tool_fail(status, "run");
    }
    if (!table_end(&table) && code == 0) code = out_of_room();
    arrays_free(&arrays);
    tool_close(&tool);
    return code;
}
