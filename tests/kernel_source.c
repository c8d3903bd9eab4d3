/* SPDX-License-Identifier: MIT
 * kernel_source.c - a row's program as a device of some family would get it, on standard output: the options as #define, then the parts. No OpenCL is
 * needed, so kernels for GPUs are compiled by offline compilers where no GPU is (script/gpu_check).
 *
 *     kernel_source FAMILY[:UNIT] ROW PROBLEM [GROUP]      GROUP: print the work-items per group instead
 *
 * UNIT: number of the matrix unit (enum cl_matrix), where the family has several. ROW may be a unit's probe: opencl.unit.amd-mfma.
 */
#include "../src/opencl/cl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct kernel_row *row_named(const char *name)
{
    for (const struct kernel_row *row = cl_rows; row->name; row++)
        if (!strcmp(row->name, name)) return row;
    for (int unit = MATRIX_EMULATED; unit < MATRIX_COUNT; unit++)
        if (!strcmp(cl_unit_row((enum cl_matrix)unit)->name, name)) return cl_unit_row((enum cl_matrix)unit);
    cl_ulong bytes;
    for (int n = 0; cl_local_row(n, &bytes); n++)
        if (!strcmp(cl_local_row(n, &bytes)->name, name)) return cl_local_row(n, &bytes);
    return NULL;
}

/* What devices of a family have at least. */
static void pretend(struct cl_device *device, const char *text)
{
    const size_t length = strcspn(text, ":");
    char family[32];
    snprintf(family, sizeof family, "%.*s", (int)length, text);
    device->own_tuning = *cl_tuning_named(family);
    device->tuning = &device->own_tuning;
    device->matrix = (enum cl_matrix)(text[length] ? atoi(text + length + 1) : device->tuning->matrix);
    device->max_group = device->max_sizes[0] = device->max_sizes[1] = device->max_sizes[2] = 256;
    atomic_init(&device->kernel_group, 256);
    device->local_bytes = 48 << 10;
    device->native_width = 1;
    device->registers = 16;
    device->address_bits = 64;
}

static void print_options(const char *options)
{
    for (const char *at = options; (at = strstr(at, "-D")) != NULL;) {
        at += 2;
        const size_t name = strcspn(at, "= "), all = strcspn(at, " ");
        printf("#define %.*s %.*s\n", (int)name, at, (int)(all > name ? all - name - 1 : 0), at + name + 1);
        at += all;
    }
}

int main(int argc, char **argv)
{
    static struct cl_device device;
    char options[CL_OPTIONS];
    heed_desc desc;
    struct problem problem;
    const struct kernel_row *row = argc >= 4 ? row_named(argv[2]) : NULL;
    if (!row) {
        fprintf(stderr, "usage: kernel_source FAMILY[:UNIT] ROW PROBLEM [GROUP]\n");
        return 2;
    }
    pretend(&device, argv[1]);
    heed_status status = heed_desc_parse(argv[3], &desc);
    if (status == HEED_OK) status = problem_from_desc(&desc, &problem);
    if (status == HEED_OK) status = cl_options(&device, row, &problem, options, sizeof options);
    if (status != HEED_OK) {
        fprintf(stderr, "kernel_source: %s\n", heed_error_message());
        return 1;
    }
    if (argc > 4) {
        size_t local[2];
        cl_local(&device, row, &problem, local);
        printf("%zu\n", local[0] * local[1]);
        return 0;
    }
    print_options(options);
    for (int n = 0; n < CL_PARTS && row->cl->parts[n]; n++)
        for (const struct kernel_text *part = kernel_texts; part->name; part++)
            if (!strcmp(part->name, row->cl->parts[n])) printf("#line 1 \"%s\"\n%.*s\n", part->name, (int)part->length, part->text);
    return 0;
}
