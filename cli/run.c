/* SPDX-License-Identifier: MIT
 * run.c - `heed run`: attention on arrays from files; prints which row did it on each device, how long it took, and how far the devices are
 * apart.
 */
#include "arrays.h"
#include "dtype.h"
#include "schedule.h"
#include "table.h"
#include "tool.h"
#include <math.h>
#include <stdlib.h>

static const struct column columns[] = {{"device", "device", -17, 0},   {"kernel", "kernel", -20, 0}, {"ms", "ms", 9, 3},
                                        {"difference", "difference", 10, 10}, {"problem", "problem", -10, 0}, {0}};

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
    if (options->key_sums && !arrays_write(arrays, ROLE_KEY_SUMS, options->key_sums)) return EXIT_USAGE;
    return EXIT_OK;
}

struct runner {
    struct tool tool;
    struct table table;
    struct arrays arrays;
    float *first; /* o of the first device, in the order b, h, i, d */
};

/* o in float, in the order b, h, i, d. NULL: no memory. */
static float *copy_output(const struct instance *instance)
{
    const struct problem *p = &instance->problem;
    const heed_tensor *o = &instance->tensors.o;
    const int32_t dim = p->v_head_dim;
    const size_t rows = (size_t)instance->line.batch * (size_t)p->q_heads * (size_t)instance->line.q_len;
    float *copy = malloc(sizeof(float) * (rows * (size_t)dim + 1));
    float *to = copy;
    for (int32_t b = 0; copy && b < instance->line.batch; b++)
        for (int32_t h = 0; h < p->q_heads; h++)
            for (int32_t i = 0; i < instance->line.q_len; i++, to += dim) {
                const int64_t at = o->offset + b * o->batch_stride + h * o->head_stride + i * o->token_stride;
                row_to_f32(p->o_type, (const char *)o->data + at * type_stride_bytes(p->o_type), 1, to, dim);
            }
    return copy;
}

/* Largest difference from what the first device said; NAN for the first itself. */
static double difference(struct runner *runner)
{
    const struct instance *instance = runner->arrays.instance;
    const size_t count = (size_t)instance->line.batch * (size_t)instance->problem.q_heads * (size_t)instance->line.q_len *
                         (size_t)instance->problem.v_head_dim;
    float *own = copy_output(instance);
    double most = 0;
    if (!runner->first) {
        runner->first = own;
        return NAN;
    }
    for (size_t n = 0; own && n < count; n++) {
        const double apart = fabs((double)own[n] - runner->first[n]);
        if (apart > most) most = apart;
    }
    free(own);
    return most;
}

static void report(struct runner *runner, int32_t device, const char *kernel, double seconds)
{
    char label[64], problem[LINE_BYTES];
    struct table *table = &runner->table;
    device_label(&runner->tool, device, label, sizeof label);
    line_format(&runner->arrays.instance->line, problem, sizeof problem);
    table_text(table, "problem", problem);
    table_text(table, "device", label);
    table_text(table, "backend", device == 0 ? "cpu" : "opencl");
    table_text(table, "kernel", kernel);
    table_number(table, "ms", 1e3 * seconds);
    table_number(table, "difference", difference(runner));
    table_row(table);
}

static double median3(double a, double b, double c)
{
    return a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);
}

/* A first run to warm up (pages, caches, the driver's lazy work), then the middle one of three. */
static heed_status compute(struct runner *runner, int32_t device)
{
    struct prepared prepared;
    double seconds[3];
    const char *kernel = runner->tool.options->kernel;
    heed_status status = prepared_make(runner->tool.context, device, kernel, runner->arrays.instance, false, &prepared);
    if (status != HEED_OK) return status;
    status = prepared_run(&prepared);
    for (int n = 0; status == HEED_OK && n < 3; n++) {
        const double begin = seconds_now();
        status = prepared_run(&prepared);
        seconds[n] = seconds_now() - begin;
    }
    if (status == HEED_OK) status = prepared_fetch(&prepared);
    if (status == HEED_OK)
        report(runner, device, kernel_name(&prepared, runner->arrays.instance), median3(seconds[0], seconds[1], seconds[2]));
    prepared_release(&prepared);
    return status;
}

/* With --device all the first device's results are written, and an unusable device is passed by. */
static int run_devices(struct runner *runner)
{
    int code = EXIT_OK;
    for (int n = 0; n < runner->tool.device_count && code == EXIT_OK; n++) {
        const int32_t device = runner->tool.devices[n];
        heed_device_info info = {.struct_size = sizeof info};
        heed_status status = heed_device_get_info(runner->tool.context, device, &info);
        if (status == HEED_OK && !info.usable && runner->tool.device_count > 1) {
            fprintf(stderr, "heed run: %s is unusable: %s\n", info.name, info.reason);
            continue;
        }
        if (status == HEED_OK) status = compute(runner, device);
        if (status != HEED_OK) return tool_fail(status, "run");
        if (n == 0) code = write_results(runner->tool.options, &runner->arrays);
    }
    return code;
}

int run_run(const struct options *options)
{
    struct runner runner = {0};
    char extra[64];
    snprintf(extra, sizeof extra, "%s%s%s", options->lse ? " lse" : "", options->scores ? " scores=3" : "", options->key_sums ? " keysums" : "");
    if (options->kernel && !kernel_known(options->kernel)) return EXIT_USAGE;
    if (!options->output && !options->lse && !options->scores && !options->key_sums) fputs("heed run: without -o FILE the result is not kept\n", stderr);
    if (!arrays_read(options, extra, &runner.arrays)) return EXIT_USAGE;
    int code = tool_open(&runner.tool, options, "cpu");
    if (code == EXIT_OK) {
        if (!table_begin(&runner.table, columns, options->json)) code = out_of_room();
        else code = run_devices(&runner);
        if (!table_end(&runner.table) && code == EXIT_OK) code = out_of_room();
        tool_close(&runner.tool);
    }
    free(runner.first);
    arrays_free(&runner.arrays);
    return code;
}
