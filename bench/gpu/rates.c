/* SPDX-License-Identifier: MIT
 * rates.c - what the first OpenCL GPU of a machine can do at most, and what its compiler says to kernels: copy rate, rate of matrix products out of registers, and
 * the log of a build. A program of its own, beside heed: nothing of the library is measured or linked. bench/gpu/first.sh runs it.
 *
 *     rates [-m MIB] [-t TURNS] [FILE.cl ...]      MIB: size of the copy, 1024; TURNS: of the products, 4096; files are built and their logs shown
 *     cc -std=c11 -O2 -o rates rates.c -lOpenCL
 */
#define CL_TARGET_OPENCL_VERSION 120
#define _POSIX_C_SOURCE 200809L
#include <CL/cl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const products =
    "#ifdef __NV_CL_C_VERSION\n"
    "#define MU_ASM asm\n"
    "#else\n"
    "#define MU_ASM __asm__\n"
    "#endif\n"
    "kernel __attribute__((reqd_work_group_size(128, 1, 1))) void rate(global float *out, uint seed, int turns)\n"
    "{\n"
    "    uint a0 = seed, a1 = seed + 1, a2 = seed + 2, a3 = seed + 3, b0 = seed + 4, b1 = seed + 5;\n"
    "    float acc[8][4], sum = 0;\n"
    "#pragma unroll\n"
    "    for (int n = 0; n < 32; n++) acc[n / 4][n % 4] = 0;\n"
    "    for (int t = 0; t < turns; t++) {\n"
    "#pragma unroll\n"
    "        for (int n = 0; n < 8; n++)\n"
    "            MU_ASM volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.\" TYPE \".\" TYPE \".f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\"\n"
    "                            : \"+f\"(acc[n][0]), \"+f\"(acc[n][1]), \"+f\"(acc[n][2]), \"+f\"(acc[n][3])\n"
    "                            : \"r\"(a0), \"r\"(a1), \"r\"(a2), \"r\"(a3), \"r\"(b0), \"r\"(b1));\n"
    "    }\n"
    "#pragma unroll\n"
    "    for (int n = 0; n < 32; n++) sum += acc[n / 4][n % 4];\n"
    "    out[get_global_id(0)] = sum;\n"
    "}\n";

static cl_device_id device;
static cl_context context;
static cl_command_queue queue;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int check(cl_int code, const char *what)
{
    if (code != CL_SUCCESS) printf("%s: error %d\n", what, (int)code);
    return code == CL_SUCCESS;
}

/* The first GPU, else the first device of all. */
static int choose(void)
{
    cl_platform_id platforms[16];
    cl_uint count = 0;
    if (clGetPlatformIDs(16, platforms, &count) != CL_SUCCESS) count = 0;
    for (int any = 0; any < 2 && !device; any++)
        for (cl_uint n = 0; n < count && n < 16 && !device; n++)
            if (clGetDeviceIDs(platforms[n], any ? CL_DEVICE_TYPE_ALL : CL_DEVICE_TYPE_GPU, 1, &device, NULL) != CL_SUCCESS) device = NULL;
    cl_int code = CL_DEVICE_NOT_FOUND;
    if (device) context = clCreateContext(NULL, 1, &device, NULL, NULL, &code);
    if (context) queue = clCreateCommandQueue(context, device, 0, &code);
    return check(code, "no device");
}

static void text_of(cl_device_info what, const char *name)
{
    char text[8192] = "";
    if (clGetDeviceInfo(device, what, sizeof text, text, NULL) == CL_SUCCESS) printf("%-12s %s\n", name, text);
}

static int describe(void) /* is it NVIDIA's? */
{
    char vendor[256] = "";
    cl_ulong local = 0;
    cl_uint units = 0, major = 0, minor = 0;
    clGetDeviceInfo(device, CL_DEVICE_VENDOR, sizeof vendor, vendor, NULL);
    clGetDeviceInfo(device, CL_DEVICE_LOCAL_MEM_SIZE, sizeof local, &local, NULL);
    clGetDeviceInfo(device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
    clGetDeviceInfo(device, 0x4000, sizeof major, &major, NULL);
    clGetDeviceInfo(device, 0x4001, sizeof minor, &minor, NULL);
    text_of(CL_DEVICE_NAME, "device");
    text_of(CL_DRIVER_VERSION, "driver");
    text_of(CL_DEVICE_VERSION, "version");
    text_of(CL_DEVICE_OPENCL_C_VERSION, "language");
    text_of(CL_DEVICE_EXTENSIONS, "extensions");
    printf("%-12s %u units, %llu bytes of local memory, compute capability %u.%u\n", "limits", units, (unsigned long long)local, major, minor);
    return strstr(vendor, "NVIDIA") != NULL;
}

static cl_program build(const char *text, const char *options, int show)
{
    cl_int code;
    char *log = calloc(1, 1 << 20);
    const double begin = now();
    cl_program program = clCreateProgramWithSource(context, 1, &text, NULL, &code);
    if (program) code = clBuildProgram(program, 1, &device, options, NULL, NULL);
    printf("  built in %.2f s\n", now() - begin);
    if (program && log && (show || code != CL_SUCCESS) &&
        clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, (1 << 20) - 1, log, NULL) == CL_SUCCESS)
        printf("%.6000s\n", log);
    free(log);
    if (check(code, "  build")) return program;
    return NULL;
}

/* What the compiler emits: version and target of its text. */
static void show_target(cl_program program)
{
    size_t size = 0;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) != CL_SUCCESS || !size) return;
    unsigned char *text = calloc(size + 1, 1);
    if (text && clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof text, &text, NULL) == CL_SUCCESS) {
        const char *words[] = {".version ", ".target ", ".reqntid ", ".shared "};
        for (int n = 0; n < 4; n++) {
            const char *at = strstr((const char *)text, words[n]);
            if (at) printf("  %.*s\n", (int)strcspn(at, "\n"), at);
        }
    }
    free(text);
}

static void copy_rate(size_t bytes)
{
    cl_int code;
    cl_mem a = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, NULL, &code), b = clCreateBuffer(context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    double best = 1e30;
    for (int n = 0; a && b && n < 8; n++) {
        const double begin = now();
        if (clEnqueueCopyBuffer(queue, a, b, 0, 0, bytes, 0, NULL, NULL) != CL_SUCCESS || clFinish(queue) != CL_SUCCESS) return;
        if (n > 1 && now() - begin < best) best = now() - begin;
    }
    printf("copy         %.1f GB/s read and written (%zu MiB)\n", 2e-9 * (double)bytes / best, bytes >> 20);
    if (a) clReleaseMemObject(a);
    if (b) clReleaseMemObject(b);
}

static void product_rate(const char *type, int turns)
{
    cl_uint units = 1, seed = 0x3c003c00;
    cl_int code;
    clGetDeviceInfo(device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
    printf("products %s\n", type);
    char *text = malloc(strlen(products) + 64);
    if (!text) return;
    sprintf(text, "#define TYPE \"%s\"\n%s", type, products);
    cl_program program = build(text, "-cl-std=CL1.2", 0);
    free(text);
    cl_kernel kernel = program ? clCreateKernel(program, "rate", &code) : NULL;
    const size_t local = 128, items = (size_t)units * 8 * local;
    cl_mem out = clCreateBuffer(context, CL_MEM_READ_WRITE, items * 4, NULL, &code);
    if (!kernel || !out) return;
    show_target(program);
    clSetKernelArg(kernel, 0, sizeof out, &out);
    clSetKernelArg(kernel, 1, sizeof seed, &seed);
    clSetKernelArg(kernel, 2, sizeof turns, &turns);
    double best = 1e30;
    for (int n = 0; n < 6; n++) {
        const double begin = now();
        if (!check(clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &items, &local, 0, NULL, NULL), "  launch") || !check(clFinish(queue), "  run")) return;
        if (n && now() - begin < best) best = now() - begin;
    }
    printf("products %s: %.1f TFLOP/s\n", type, 1e-12 * 4096.0 * 8 * turns * (double)(items / 32) / best);
}

static void build_file(const char *path, int nvidia)
{
    char *text = calloc(1, 1 << 20);
    FILE *file = fopen(path, "r");
    if (text && file && fread(text, 1, (1 << 20) - 1, file) > 0) {
        printf("%s\n", path);
        cl_program program = build(text, nvidia ? "-cl-std=CL1.2 -cl-nv-verbose" : "-cl-std=CL1.2 -w", 1);
        if (program) show_target(program);
    }
    if (file) fclose(file);
    free(text);
}

int main(int argc, char **argv)
{
    size_t mib = 1024;
    int turns = 4096, n = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (; n + 1 < argc && argv[n][0] == '-'; n += 2) {
        if (argv[n][1] == 'm') mib = (size_t)atoi(argv[n + 1]);
        if (argv[n][1] == 't') turns = atoi(argv[n + 1]);
    }
    if (!choose()) return 1;
    const int nvidia = describe();
    copy_rate(mib << 20);
    if (nvidia) { /* other compilers are not shown this assembly */
        product_rate("bf16", turns);
        product_rate("f16", turns);
    } else {
        printf("products: no matrix unit that this program knows\n");
    }
    for (; n < argc; n++) build_file(argv[n], nvidia);
    return 0;
}
