/* SPDX-License-Identifier: MIT
 * program.c - source parts + options -> cl_program. Kept in memory per device, and on disk where the driver keeps none itself. Called while
 * plans are made and nowhere else.
 *
 * Programs, like everything that a probe's thread touches, come from malloc and not from the caller's allocator: such a thread may outlive
 * the context.
 */
#include "cl.h"
#include "../mutant.h"
#include "retarget.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { LOG_IN_MESSAGE = 3000, PROGRAMS_KEPT = 128 };

/* ---- options ---------------------------------------------------------------- */

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Rows with an argument list of attention: items of a work list. */
static bool is_attention(const struct kernel_row *row) { return (row->kinds & (KIND_BIT(WORK_KINDS) - 1)) != 0; }

/* What is computed, in the order of struct problem in kernels/common.cl. Floats go as bit patterns: no locale, no rounding. */
#define EACH_CONSTANT(X)                                                                                                         \
    X(HEAD_DIM, p->head_dim) X(V_HEAD_DIM, p->v_head_dim) X(KV_HEADS, p->kv_heads) X(GROUP, p->group) X(Q_TYPE, p->q_type)       \
    X(K_TYPE, p->k_type) X(V_TYPE, p->v_type) X(O_TYPE, p->o_type) X(BIAS_TYPE, p->bias_type) X(PAGE_SIZE, p->page_size)         \
    X(WINDOW_LEFT, p->window_left) X(WINDOW_RIGHT, p->window_right) X(CAUSAL, FLAG(CAUSAL)) X(ALIBI, FLAG(ALIBI))                \
    X(SINKS, FLAG(SINKS)) X(MASK_BOOL, FLAG(MASK_BOOL)) X(MASK_BITS, FLAG(MASK_BITS)) X(BIAS, FLAG(BIAS))                        \
    X(BIAS_FIRST, FLAG(BIAS_FIRST)) X(KEY_RANGE, FLAG(KEY_RANGE)) X(WRITE_LSE, FLAG(WRITE_LSE)) X(LSE_BASE2, FLAG(LSE_BASE2))    \
    X(LSE_WITHOUT_SINK, FLAG(LSE_WITHOUT_SINK)) X(SCORES, FLAG(WRITE_SCORES)) X(SCORES_STAGE, p->scores_stage)                   \
    X(SCALE_BITS, float_bits(p->scale)) X(SOFTCAP_BITS, float_bits(p->softcap)) X(ROPE_DIM, p->rope_dim)                         \
    X(ROPE_OFFSET, p->rope_offset) X(ROPE_INTERLEAVED, FLAG(ROPE_INTERLEAVED)) X(KEY_SUMS, FLAG(WRITE_KEY_SUMS))                 \
    X(KEEP_SUMS, (p->features & FEATURE_SUMS) != 0)
#define FLAG(name) ((p->flags & HEED_##name) != 0)
#define NAME_OF(name, value) #name,
#define VALUE_OF(name, value) (int32_t)(value),

void cl_constants(const struct problem *p, int32_t values[CL_CONSTANTS])
{
    const int32_t all[] = {EACH_CONSTANT(VALUE_OF)};
    _Static_assert(sizeof all / sizeof *all == CL_CONSTANTS, "the size of struct problem in common.cl");
    memcpy(values, all, sizeof all);
}

/* The problem as a program that is compiled for it sees it: what its kernels do not look at gets one fixed value, so that plans that differ there
 * share one program. A build costs a second on some drivers. */
static struct problem seen_by_compiler(const struct kernel_row *row, const struct problem *problem)
{
    struct problem p = *problem;
    if (!(p.flags & HEED_BIAS)) p.bias_type = HEED_F32;
    if (row->kinds & KIND_BIT(KIND_SCORES)) { /* V, the output and what becomes of the sums is attention's */
        p.v_type = p.o_type = HEED_F32;
        p.v_head_dim = p.head_dim;
        p.flags &= ~(HEED_WRITE_LSE | HEED_SINKS | HEED_KEY_SUMS_ALL_HEADS);
        if (!(p.flags & HEED_WRITE_SCORES)) p.scores_stage = 0;
    } else {
        p.flags &= ~(HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS | HEED_KEY_SUMS_ALL_HEADS);
        p.scores_stage = 0;
    }
    if (!(p.flags & HEED_WRITE_LSE)) p.flags &= ~(HEED_LSE_BASE2 | HEED_LSE_WITHOUT_SINK);
    if (!(p.flags & HEED_SINKS)) p.flags &= ~HEED_LSE_WITHOUT_SINK;
    p.kv_heads = 1;
    p.rope_dim = p.rope_offset = 0;
    p.flags &= ~HEED_ROPE_INTERLEAVED;
    return p;
}

static size_t constant_options(const struct kernel_row *row, const struct problem *problem, char *text, size_t capacity, size_t n)
{
    static const char *const names[] = {EACH_CONSTANT(NAME_OF)};
    int32_t values[CL_CONSTANTS];
    if (row->cl->run_time) return text_append(text, capacity, n, " -DRUN_TIME=1");
    const struct problem seen = seen_by_compiler(row, problem);
    cl_constants(&seen, values);
    for (int i = 0; i < CL_CONSTANTS; i++) n = text_append(text, capacity, n, " -D%s=%d", names[i], values[i]);
    return n;
}

void cl_local(const struct cl_device *device, const struct kernel_row *row, const struct problem *problem, size_t local[2])
{
    local[0] = local[1] = 1;
    if (row->cl->local)
        row->cl->local(device, problem, local);
    else if (!is_attention(row))
        local[0] = (size_t)cl_lanes(device);
}

heed_status cl_options(const struct cl_device *device, const struct kernel_row *row, const struct problem *p, char *text, size_t capacity)
{
    size_t local[2];
    cl_local(device, row, p, local);
    size_t n = text_append(text, capacity, 0, "-cl-std=CL1.2 -w -DLOCAL_X=%d -DLOCAL_Y=%d -DGUARD=%d", (int)local[0], (int)local[1],
                           device->tuning->loop_guard);
    if (device->tuning->builtin_fetch) n = text_append(text, capacity, n, " -DBUILTIN_FETCH=1");
    n = constant_options(row, p, text, capacity, n);
    if (is_attention(row))
        n = text_append(text, capacity, n, " -DQ_TILE=%d -DKV_CHUNK=%d -DPACKS_GROUP=%d", row->q_tile, row->kv_chunk, row->packs_group);
    if (row->cl->options && n < capacity) n += row->cl->options(device, p, text + n, capacity - n);
#ifdef HEED_MUTANTS
    if (mutant_name()) n = text_append(text, capacity, n, " -DMUTANT_%s", mutant_name());
#endif
    return n < capacity ? HEED_OK : fail(HEED_INTERNAL, "build options of %s need %zu bytes, room for %zu", row->name, n, capacity);
}

/* ---- sources ------------------------------------------------------------------ */

static const struct kernel_text *part_named(const char *name)
{
    for (const struct kernel_text *part = kernel_texts; part->name; part++)
        if (!strcmp(part->name, name)) return part;
    return NULL;
}

static void hash_text(XXH3_state_t *state, const char *text) { XXH3_128bits_update(state, text, strlen(text) + 1); }

/* Some drivers name their compiler in the platform's version alone. */
void cl_identity(struct cl_device *device, const heed_device_info *info, const char *platform_version)
{
    char text[2048];
    const size_t n = text_append(text, sizeof text, 0, "%u|%s|%s|%s|%s|%s|%s", (unsigned)heed_version(), info->platform, platform_version,
                                 info->name, info->vendor, MUTANT(cl_identity_driver) ? "" : device->driver, device->version_text);
    const XXH128_hash_t sum = XXH3_128bits(text, n < sizeof text ? n : sizeof text - 1);
    device->identity[0] = sum.low64;
    device->identity[1] = sum.high64;
}

heed_status cl_program_hash(const struct cl_device *device, const struct kernel_row *row, const struct problem *problem, uint64_t hash[2])
{
    char options[CL_OPTIONS];
    heed_status status = cl_options(device, row, problem, options, sizeof options);
    if (status != HEED_OK) return status;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return out_of_memory(sizeof *state);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, device->identity, sizeof device->identity);
    hash_text(state, options);
    for (int i = 0; i < CL_PARTS && row->cl->parts[i]; i++) {
        const struct kernel_text *part = part_named(row->cl->parts[i]);
        hash_text(state, row->cl->parts[i]);
        if (part) XXH3_128bits_update(state, part->text, part->length);
    }
    const XXH128_hash_t sum = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    hash[0] = sum.low64;
    hash[1] = sum.high64;
    return HEED_OK;
}

/* Each part behind a #line of its own, so that the compiler's log names our files. */
static heed_status source_program(struct cl_device *device, const struct kernel_row *row, cl_program *program)
{
    char lines[CL_PARTS][96];
    const char *texts[2 * CL_PARTS];
    size_t lengths[2 * CL_PARTS];
    cl_uint count = 0;
    for (int i = 0; i < CL_PARTS && row->cl->parts[i]; i++) {
        const struct kernel_text *part = part_named(row->cl->parts[i]);
        if (!part) return fail(HEED_INTERNAL, "%s needs kernels/%s, which this build does not hold", row->name, row->cl->parts[i]);
        snprintf(lines[i], sizeof lines[i], "\n#line 1 \"%s\"\n", part->name);
        texts[count] = lines[i];
        lengths[count++] = strlen(lines[i]);
        texts[count] = part->text;
        lengths[count++] = part->length;
    }
    cl_int code = CL_SUCCESS;
    *program = clCreateProgramWithSource(device->context, count, texts, lengths, &code);
    return *program ? HEED_OK : cl_failed(device, "clCreateProgramWithSource", code);
}

/* ---- building ------------------------------------------------------------------- */

/* The message: row, error, options and the head of the log. */
static heed_status build_failed(struct cl_device *device, const struct kernel_row *row, cl_program program, const char *options,
                                cl_int code)
{
    size_t size = 0;
    char *log = NULL;
    if (clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size) == CL_SUCCESS && size > 1 && size < 64u << 20 &&
        (log = calloc(size + 1, 1)) != NULL &&
        clGetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, size, log, NULL) != CL_SUCCESS)
        log[0] = '\0';
    const heed_status status = code == CL_DEVICE_NOT_AVAILABLE || code == CL_OUT_OF_HOST_MEMORY || code == CL_OUT_OF_RESOURCES
                                   ? HEED_DEVICE_FAILED
                                   : HEED_BUILD_FAILED;
    if (status == HEED_DEVICE_FAILED)
        cl_failed(device, "clBuildProgram", code);
    else
        fail(status, "kernel %s does not build on %s: clBuildProgram: %s; log: %.*s; options: %.700s", row->name, device->name,
             cl_error_name(code), LOG_IN_MESSAGE, log && log[0] ? log : "(empty)", options);
    free(log);
    return status;
}

/* The bytes of our own cache; NULL where there are none or the driver does not want them. */
static cl_program binary_program(struct cl_device *device, const uint64_t hash[2], const char *options)
{
    size_t length;
    unsigned char *bytes = cl_cache_load(&device->services, hash, "program", &length);
    if (!bytes) return NULL;
    const unsigned char *const binaries[] = {bytes};
    cl_int state = CL_SUCCESS, code = CL_SUCCESS;
    cl_program program =
        clCreateProgramWithBinary(device->context, 1, &device->id, &length, (const unsigned char **)binaries, &state, &code);
    if (program && (state != CL_SUCCESS || clBuildProgram(program, 1, &device->id, options, NULL, NULL) != CL_SUCCESS)) {
        clReleaseProgram(program);
        program = NULL;
    }
    free(bytes);
    return program;
}

static void keep_binary(struct cl_device *device, const uint64_t hash[2], cl_program program)
{
    size_t size = 0;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) != CL_SUCCESS || size == 0 || size > 64u << 20) return;
    unsigned char *bytes = malloc(size), *const binaries[] = {bytes};
    if (bytes && clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binaries, (void *)binaries, NULL) == CL_SUCCESS)
        cl_cache_store(&device->services, hash, "program", bytes, size);
    free(bytes);
}

/* A program of marked instructions in the form that its device runs: the compiler's own output, rewritten and built again. Never run as it was. */
static heed_status rebuild(struct cl_device *device, const struct kernel_row *row, const char *options, cl_program *program)
{
    size_t size = 0;
    const char *why = "";
    heed_status status = CL(device, clGetProgramInfo(*program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL));
    if (status == HEED_OK && (size == 0 || size > 64u << 20)) status = fail(HEED_BUILD_FAILED, "kernel %s: a binary of %zu bytes", row->name, size);
    unsigned char *text = status == HEED_OK ? malloc(2 * size + 2) : NULL, *const binaries[] = {text}, *const again = text ? text + size : NULL;
    if (status == HEED_OK && !text) status = out_of_memory(2 * size + 2);
    if (status == HEED_OK) status = CL(device, clGetProgramInfo(*program, CL_PROGRAM_BINARIES, sizeof binaries, (void *)binaries, NULL));
    clReleaseProgram(*program);
    *program = NULL;
    const size_t length = status == HEED_OK ? retarget((const char *)text, size, (char *)again, &why) : 0;
    if (status == HEED_OK && length == 0) status = fail(HEED_BUILD_FAILED, "kernel %s: %s", row->name, why);
    if (status == HEED_OK) {
        cl_int state = CL_SUCCESS, code = CL_SUCCESS;
        const unsigned char *const rewritten[] = {again};
        *program = clCreateProgramWithBinary(device->context, 1, &device->id, &length, (const unsigned char **)rewritten, &state, &code);
        if (!*program) status = cl_failed(device, "clCreateProgramWithBinary", code);
        else if ((code = clBuildProgram(*program, 1, &device->id, options, NULL, NULL)) != CL_SUCCESS) status = build_failed(device, row, *program, options, code);
    }
    if (status != HEED_OK && *program) {
        clReleaseProgram(*program);
        *program = NULL;
    }
    free(text);
    return status;
}

static heed_status build(struct cl_device *device, const struct kernel_row *row, const struct problem *problem, struct cl_program *made)
{
    char options[CL_OPTIONS];
    heed_status status = cl_options(device, row, problem, options, sizeof options);
    if (status != HEED_OK) return status;
    if (!device->own_cache && (made->program = binary_program(device, made->hash, options))) {
        made->from_disk = true;
        return HEED_OK;
    }
    status = source_program(device, row, &made->program);
    if (status != HEED_OK) return status;
    const double begin = cl_seconds();
    const cl_int code = clBuildProgram(made->program, 1, &device->id, options, NULL, NULL);
    if (code != CL_SUCCESS) {
        status = build_failed(device, row, made->program, options, code);
        clReleaseProgram(made->program);
        made->program = NULL;
        return status;
    }
    if (row->cl->marked && device->matrix != MATRIX_EMULATED) {
        status = rebuild(device, row, options, &made->program);
        if (status != HEED_OK) return status;
    }
    /* Below a tenth of a second asking for the binary costs more than it saves. */
    if (!device->own_cache && cl_seconds() - begin > 0.1) keep_binary(device, made->hash, made->program);
    return HEED_OK;
}

/* ---- in memory --------------------------------------------------------------------- */

/* The lock is held. One more holds what is found. */
static struct cl_program *find(struct cl_device *device, const uint64_t hash[2])
{
    for (struct cl_program *p = device->programs; p; p = p->next)
        if (p->hash[0] == hash[0] && p->hash[1] == hash[1]) {
            p->holders++;
            return p;
        }
    return NULL;
}

static void program_free(struct cl_program *program)
{
    clReleaseProgram(program->program);
    free(program);
}

/* Beyond the limit, programs that nobody holds go, the oldest first. The lock is held. */
static void trim(struct cl_device *device)
{
    int count = 0;
    for (struct cl_program **at = &device->programs; *at;) {
        struct cl_program *program = *at;
        if (++count > PROGRAMS_KEPT && program->holders == 0) {
            *at = program->next;
            program_free(program);
        } else {
            at = &program->next;
        }
    }
}

heed_status cl_program_get(struct cl_device *device, const struct kernel_row *row, const struct problem *problem, struct cl_program **out)
{
    uint64_t hash[2];
    heed_status status = cl_device_open(device);
    if (status == HEED_OK) status = cl_program_hash(device, row, problem, hash);
    if (status != HEED_OK) return status;
    pthread_mutex_lock(&device->lock);
    *out = find(device, hash);
    pthread_mutex_unlock(&device->lock);
    if (*out) return HEED_OK;

    struct cl_program *made = calloc(1, sizeof *made);
    if (!made) return out_of_memory(sizeof *made);
    memcpy(made->hash, hash, sizeof hash);
    made->holders = 1;
    status = build(device, row, problem, made);
    if (status != HEED_OK) {
        free(made);
        return status;
    }
    pthread_mutex_lock(&device->lock); /* two threads may have built the same: the first one stays */
    *out = find(device, hash);
    if (!*out) {
        made->next = device->programs;
        device->programs = *out = made;
        trim(device);
    }
    pthread_mutex_unlock(&device->lock);
    if (*out != made) program_free(made);
    return HEED_OK;
}

void cl_program_drop(struct cl_device *device, struct cl_program *program)
{
    if (!program || cl_device_forked(device)) return;
    pthread_mutex_lock(&device->lock);
    program->holders--;
    pthread_mutex_unlock(&device->lock);
}

void cl_programs_release(struct cl_device *device)
{
    while (device->programs) {
        struct cl_program *program = device->programs;
        device->programs = program->next;
        program_free(program);
    }
}
