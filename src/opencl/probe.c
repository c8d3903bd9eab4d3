/* SPDX-License-Identifier: MIT
 * probe.c - admission: a row is offered on a device after it gave right answers there, in the very form in which it will be used. Neither a
 * type, nor a name, nor a successful build admits a row. The problem and the judging are in probe_case.c; here: threads, limits, verdicts.
 *
 * A build cannot be interrupted, so each probe runs in a thread of its own; after the limit the row is refused and the thread left to end
 * by itself. It may outlive the context: it touches cl_device alone, whose memory is malloc's.
 */
#include "cl.h"
#include "probe_case.h"
#include "../mutant.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { REASON_BYTES = 200 };

/* What is known of a row in one form on this device. The fields after `next` are what is stored on disk. */
struct cl_verdict {
    struct cl_verdict *next;
    struct known {
        uint64_t key[2];
        float work_seconds;        /* per (query, key) pair and dimension */
        uint32_t status;           /* HEED_OK: admitted */
        char reason[REASON_BYTES];
    } known;
};

/* ---- verdicts ---------------------------------------------------------------------- */

static heed_status verdict_key(struct cl_device *device, const struct kernel_row *row, enum kind kind, const struct problem *problem,
                               uint64_t key[2])
{
    uint64_t program[2];
    heed_status status = cl_program_hash(device, row, problem, program);
    if (status != HEED_OK) return status;
    char text[256];
    const size_t n = text_append(text, sizeof text, 0, "%s %d %d %d %d %d %llx", row->name, (int)kind, row->q_tile, row->kv_chunk,
                                 row->short_chunk > 0, (int)row->packs_group, (unsigned long long)program[1]);
    const XXH128_hash_t sum = XXH3_128bits_withSeed(text, n, program[0]);
    key[0] = sum.low64;
    key[1] = sum.high64;
    return HEED_OK;
}

/* With the lock held. */
static struct cl_verdict *find(struct cl_device *device, const uint64_t key[2])
{
    for (struct cl_verdict *v = device->verdicts; v; v = v->next)
        if (v->known.key[0] == key[0] && v->known.key[1] == key[1]) return v;
    return NULL;
}

static bool recall(struct cl_device *device, const uint64_t key[2], struct known *known)
{
    pthread_mutex_lock(&device->lock);
    const struct cl_verdict *verdict = find(device, key);
    if (verdict) *known = verdict->known;
    pthread_mutex_unlock(&device->lock);
    return verdict != NULL;
}

static void remember(struct cl_device *device, const struct known *known)
{
    struct cl_verdict *verdict = malloc(sizeof *verdict);
    if (!verdict) return; /* probed again next time */
    verdict->known = *known;
    pthread_mutex_lock(&device->lock);
    verdict->next = device->verdicts;
    device->verdicts = verdict;
    pthread_mutex_unlock(&device->lock);
}

static bool load(struct cl_device *device, const uint64_t key[2], struct known *known)
{
    size_t length = 0;
    struct known *stored = cl_cache_load(&device->services, key, "verdict", &length);
    const bool good = stored && length == sizeof *stored && stored->key[0] == key[0] && stored->key[1] == key[1];
    if (good) {
        *known = *stored;
        known->reason[REASON_BYTES - 1] = '\0';
    }
    free(stored);
    return good;
}

void cl_verdicts_release(struct cl_device *device)
{
    while (device->verdicts) {
        struct cl_verdict *verdict = device->verdicts;
        device->verdicts = verdict->next;
        free(verdict);
    }
}

float cl_pair_seconds(struct cl_device *device, const struct kernel_row *row, const struct problem *problem)
{
    uint64_t key[2];
    struct known known = {0};
    for (int kind = KIND_PREFILL; kind < WORK_KINDS; kind++)
        if (verdict_key(device, row, (enum kind)kind, problem, key) == HEED_OK && recall(device, key, &known) && known.work_seconds > 0)
            return known.work_seconds * (float)(problem->head_dim + problem->v_head_dim);
    return 20e-9f; /* a slow device: more and shorter launches */
}

/* ---- the thread ---------------------------------------------------------------------- */

/* How long a verdict is kept: not at all (a passing lack of memory); by this context (a limit that the driver names may be another one tomorrow, by
 * a variable that it reads); on disk. */
enum lasting { PASSING, HERE, ON_DISK };

/* Shared by the thread and by who waits for it; the last one frees it. */
struct probe {
    atomic_int refs;
    struct cl_device *device;
    const struct kernel_row *row;
    enum kind kind;
    struct problem problem;
    pthread_mutex_t lock;
    pthread_cond_t ended_signal;
    bool ended;
    heed_status status;
    enum lasting lasting;
    float work_seconds;
    char message[4096];
};

static void probe_drop(struct probe *probe)
{
    if (atomic_fetch_sub(&probe->refs, 1) != 1) return;
    pthread_mutex_destroy(&probe->lock);
    pthread_cond_destroy(&probe->ended_signal);
    free(probe);
}

static void *probe_thread(void *argument)
{
    struct probe *probe = argument;
    struct cl_device *device = probe->device;
    float work_seconds = 0;
    bool wrong = false;
    const heed_status status = probe->row->kinds ? probe_case(device, &probe->problem, probe->row, probe->kind, &work_seconds, &wrong)
                                                 : cl_unit_case(device, &probe->problem, probe->row, &wrong);
    pthread_mutex_lock(&probe->lock);
    probe->status = status;
    probe->lasting = PASSING;
    if (status == HEED_UNSUPPORTED && !MUTANT(cl_limits_forgotten)) probe->lasting = HERE;
    if (status == HEED_OK || status == HEED_BUILD_FAILED || wrong) probe->lasting = ON_DISK;
    probe->work_seconds = work_seconds;
    if (status != HEED_OK) snprintf(probe->message, sizeof probe->message, "%s", heed_error_message());
    probe->ended = true;
    pthread_cond_signal(&probe->ended_signal);
    pthread_mutex_unlock(&probe->lock);
    probe_drop(probe);
    atomic_fetch_sub(&device->probing, 1); /* the last touch */
    return NULL;
}

static struct probe *probe_start(struct cl_device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind)
{
    struct probe *probe = calloc(1, sizeof *probe);
    pthread_condattr_t clock;
    pthread_attr_t detached;
    pthread_t thread;
    if (!probe) return NULL;
    *probe = (struct probe){.device = device, .row = row, .kind = kind, .problem = *problem};
    atomic_init(&probe->refs, 2);
    pthread_mutex_init(&probe->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&probe->ended_signal, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    atomic_fetch_add(&device->probing, 1);
    const int error = pthread_create(&thread, &detached, probe_thread, probe);
    pthread_attr_destroy(&detached);
    if (error == 0) return probe;
    atomic_fetch_sub(&device->probing, 1);
    atomic_store(&probe->refs, 1);
    probe_drop(probe);
    return NULL;
}

/* The tuning line's limit, 20 s; more where more threads want to run than there are processors, because then the wait says nothing about the driver. */
static int limit_seconds(const struct cl_device *device)
{
    const int limit = device->tuning->limit;
    double load = 0;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (getloadavg(&load, 1) != 1 || cores < 1 || load <= (double)cores) return limit;
    const double factor = load / (double)cores;
    return (int)(limit * (factor < 3 ? factor : 3));
}

/* Waits for the end or the limit; message and status are the probe's. */
static heed_status probe_wait(struct probe *probe, enum lasting *lasting, float *work_seconds)
{
    struct timespec end;
    int error = 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    const int limit = MUTANT(cl_probe_patient) ? 3600 : limit_seconds(probe->device);
    end.tv_sec += limit;
    pthread_mutex_lock(&probe->lock);
    while (!probe->ended && error == 0) error = pthread_cond_timedwait(&probe->ended_signal, &probe->lock, &end);
    heed_status status = HEED_UNSUPPORTED;
    *lasting = ON_DISK;
    if (probe->ended) {
        status = probe->status;
        *lasting = probe->lasting;
        *work_seconds = probe->work_seconds;
        if (status != HEED_OK) fail(status, "%s", probe->message);
    } else {
        fail(status, "its probe did not end within %d s", limit);
    }
    pthread_mutex_unlock(&probe->lock);
    return status;
}

/* ---- admission ------------------------------------------------------------------------- */

/* What the columns say about the device. */
static heed_status check_needs(const struct cl_device *device, const struct kernel_row *row)
{
    static const struct { uint32_t bit; const char *text; } needs[] = {
        {CL_NEEDS_CPU, "a device of type CPU"}, {CL_NEEDS_GPU, "a device that is no CPU"}, {CL_NEEDS_HALF, "cl_khr_fp16"},
        {CL_NEEDS_SUBGROUPS, "sub-groups with shuffles (cl_khr_subgroup_shuffle or cl_intel_subgroups)"}, {CL_NEEDS_FP64, "cl_khr_fp64"}, {CL_NEEDS_LOCAL, "local memory of its own"},
        {CL_NEEDS_NV, "an NVIDIA driver"}, {CL_NEEDS_MATRIX, "a matrix unit (NVIDIA's mma.sync)"},
        {CL_NEEDS_COLUMNS, "a matrix unit (AMD's or Intel's)"},
        {CL_NEEDS_WARPGROUP, "a matrix unit (NVIDIA's wgmma)"}, {CL_NEEDS_DOTS, "AVX512-BF16 and PoCL on this processor"}};
    const uint32_t missing = row->needs & ~device->provides;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (missing & needs[i].bit) return fail(HEED_UNSUPPORTED, "needs %s", needs[i].text);
    return missing ? fail(HEED_UNSUPPORTED, "needs something this device lacks (0x%x)", missing) : HEED_OK;
}

/* Local memory and the group; those of a matrix row follow from the unit that was proved. */
static heed_status check_sizes(const struct cl_device *device, const struct kernel_row *row, const struct problem *problem)
{
    const size_t bytes = row->cl->local_bytes ? row->cl->local_bytes(device, problem) : 0;
    if (bytes > cl_local_limit(device, row))
        return fail(HEED_UNSUPPORTED, "needs %zu bytes of local memory, the device has %llu", bytes,
                    (unsigned long long)cl_local_limit(device, row));
    size_t local[2];
    cl_local(device, row, problem, local);
    if (local[0] * local[1] > device->max_group || local[0] > device->max_sizes[0] || local[1] > device->max_sizes[1])
        return fail(HEED_UNSUPPORTED, "needs groups of %zu x %zu work-items, the device takes %zu", local[0], local[1], device->max_group);
    return HEED_OK;
}

/* One line: what stands before the first line end. */
static void first_line(const char *from, char *to, size_t capacity)
{
    const size_t length = strcspn(from, "\n");
    snprintf(to, capacity, "%.*s", (int)(length < capacity ? length : capacity - 1), from);
}

/* heed info shows what a driver was refused; a device whose last row fails is not usable. */
static void note_refusal(struct device *device, const struct kernel_row *row, const char *reason)
{
    struct heed_context *context = device->context;
    const bool last = row->kinds && !row[1].name;
    pthread_mutex_lock(&context->lock);
    heed_device_info *info = &device->info;
    if (!strstr(info->reason, row->name) || last)
        text_append(info->reason, sizeof info->reason, last ? 0 : strlen(info->reason), "%s%s: %s", info->reason[0] && !last ? "; " : "",
                    row->name, reason);
    if (last) info->usable = 0;
    pthread_mutex_unlock(&context->lock);
    log_line(&context->services, 1, "%s: %s refused: %s", info->name, row->name, reason);
}

/* heed info names a matrix unit after a row has worked with it: the best of them. */
static void note_unit(struct device *device)
{
    const struct cl_device *d = cl_device_of(device);
    pthread_mutex_lock(&device->context->lock);
    snprintf(device->info.matrix_unit, sizeof device->info.matrix_unit, "%s",
             cl_matrix_name(d->proved_warpgroup && d->matrix != MATRIX_EMULATED ? MATRIX_NV_WGMMA : d->matrix));
    pthread_mutex_unlock(&device->context->lock);
}

/* Probes the row in a thread and writes down the verdict. */
static heed_status judge(struct device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind,
                         struct known *known)
{
    struct cl_device *d = cl_device_of(device);
    enum lasting lasting = PASSING;
    struct probe *probe = probe_start(d, problem, row, kind);
    if (!probe) return fail(HEED_OUT_OF_MEMORY, "no thread for the probe of %s", row->name);
    const heed_status status = probe_wait(probe, &lasting, &known->work_seconds);
    probe_drop(probe);
    known->status = (uint32_t)status;
    if (status != HEED_OK) first_line(heed_error_message(), known->reason, sizeof known->reason);
    if (lasting != PASSING) {
        remember(d, known);
        if (lasting == ON_DISK) cl_cache_store(&d->services, known->key, "verdict", known, sizeof *known);
        if (status != HEED_OK && row->kinds) note_refusal(device, row, known->reason);
    }
    return status;
}

/* A refusal from disk holds. An admission holds for a program made from its source; one loaded as a binary is another program, which is
 * probed again at its first use. */
static bool recall_from_disk(struct device *device, const struct kernel_row *row, struct known *known)
{
    struct cl_device *d = cl_device_of(device);
    struct known stored;
    if (!load(d, known->key, &stored) || (stored.status == HEED_OK && !d->own_cache)) return false;
    *known = stored;
    remember(d, known);
    if (stored.status != HEED_OK && row->kinds) note_refusal(device, row, stored.reason);
    return true;
}

/* The verdict, from memory, from disk, or by a probe. `admission` is held. */
static heed_status verdict_of(struct device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind, struct known *known)
{
    struct cl_device *d = cl_device_of(device);
    if (!recall(d, known->key, known) && !recall_from_disk(device, row, known)) return judge(device, problem, row, kind, known);
    return known->status == HEED_OK ? HEED_OK : fail((heed_status)known->status, "%s", known->reason);
}

/* ---- the matrix unit --------------------------------------------------------------------- */

/* The first of the device's candidates that gives exact answers with this type of operand is its unit from then on. Those that do not even build are what is
 * expected of a family with several units: heed info shows a refusal when none is left. */
static heed_status prove_unit(struct device *device, const struct kernel_row *row, heed_type type)
{
    struct cl_device *d = cl_device_of(device);
    const bool warpgroup = (row->needs & CL_NEEDS_WARPGROUP) != 0;
    enum cl_matrix *const units = warpgroup ? d->warpgroup : d->units;
    uint32_t *const proved = warpgroup ? &d->proved_warpgroup : &d->proved;
    struct problem problem;
    char reasons[640] = "";
    size_t length = 0;
    if (*proved >> type & 1) return HEED_OK;
    heed_status status = cl_unit_problem(type, &problem);
    if (status != HEED_OK) return status;
    for (int n = 0; n < CL_UNITS && units[n] != MATRIX_NONE; n++) {
        const struct kernel_row *unit = cl_unit_row(units[n]);
        struct known known = {0};
        status = verdict_key(d, unit, KIND_PREFILL, &problem, known.key);
        if (status == HEED_OK) status = verdict_of(device, &problem, unit, KIND_PREFILL, &known);
        if (status == HEED_OK) {
            *proved |= 1u << type;
            if (n == 0 && units[1] == MATRIX_NONE) return HEED_OK; /* others may be reading it */
            d->matrix = units[0] = units[n];
            units[1] = MATRIX_NONE;
            return HEED_OK;
        }
        if (status != HEED_UNSUPPORTED && status != HEED_BUILD_FAILED) return status; /* a lost device, or no memory */
        length = text_append(reasons, sizeof reasons, length, "%s%s: %.150s", n ? "; " : "", unit->name, heed_error_message());
    }
    note_refusal(device, cl_unit_row(MATRIX_NONE), reasons);
    return fail(HEED_UNSUPPORTED, "no matrix unit gave exact answers for %s: %s", type == HEED_F16 ? "f16" : type == HEED_BF16 ? "bf16" : "f32", reasons);
}

/* NVIDIA's driver names 48 KiB for every chip, and a kernel may have what the chip has: the largest size that works in a kernel of its own. */
static heed_status prove_local(struct device *device)
{
    struct cl_device *d = cl_device_of(device);
    struct problem problem;
    cl_ulong bytes = 0;
    if (d->matrix_local_bytes) return HEED_OK;
    heed_status status = cl_unit_problem(HEED_F16, &problem);
    const struct kernel_row *row = NULL;
    for (int n = 0; status == HEED_OK && (d->provides & CL_NEEDS_NV) && (row = cl_local_row(n, &bytes)) != NULL; n++) {
        struct known known = {0};
        if (bytes <= d->local_bytes) break;
        status = verdict_key(d, row, KIND_PREFILL, &problem, known.key);
        if (status == HEED_OK) status = verdict_of(device, &problem, row, KIND_PREFILL, &known);
        if (status == HEED_OK) {
            d->matrix_local_bytes = bytes;
            return HEED_OK;
        }
        if (status == HEED_UNSUPPORTED || status == HEED_BUILD_FAILED) status = HEED_OK;
    }
    if (status == HEED_OK) d->matrix_local_bytes = d->local_bytes;
    return status;
}

/* The first size of sub-group whose words give exact answers is the device's from then on. */
static heed_status prove_subgroup(struct device *device)
{
    struct cl_device *d = cl_device_of(device);
    struct problem problem;
    char reasons[640] = "";
    size_t length = 0;
    if (d->subgroup_lanes) return HEED_OK;
    heed_status status = cl_unit_problem(HEED_F32, &problem);
    const struct kernel_row *row = NULL;
    for (int n = 0; status == HEED_OK && (row = cl_subgroup_row(d, n)) != NULL; n++) {
        struct known known = {0};
        status = verdict_key(d, row, KIND_PREFILL, &problem, known.key);
        if (status == HEED_OK) status = verdict_of(device, &problem, row, KIND_PREFILL, &known);
        if (status == HEED_OK) {
            d->subgroup_lanes = cl_subgroup_lanes_of(row);
            return HEED_OK;
        }
        if (status != HEED_UNSUPPORTED && status != HEED_BUILD_FAILED) return status; /* a lost device, or no memory */
        length = text_append(reasons, sizeof reasons, length, "%s%s: %.150s", n ? "; " : "", row->name, heed_error_message());
        status = HEED_OK;
    }
    if (status != HEED_OK) return status;
    note_refusal(device, cl_unit_row(MATRIX_COUNT), reasons);
    return fail(HEED_UNSUPPORTED, "no sub-group gave exact answers: %s", reasons);
}

heed_status cl_admit(struct device *device, const struct problem *problem, const struct kernel_row *row, enum kind kind, char *reason,
                     size_t capacity)
{
    struct cl_device *d = cl_device_of(device);
    struct known known = {0};
    const bool matrix = (row->needs & CL_NEEDS_UNIT) != 0, lanes = (row->needs & CL_NEEDS_SUBGROUPS) != 0;
    heed_status status = check_needs(d, row);
    if (status == HEED_OK && !matrix && !lanes) status = check_sizes(d, row, problem);
    if (status == HEED_OK) status = cl_device_open(d);
    if (status == HEED_OK) {
        pthread_mutex_lock(&d->admission);
        if (matrix) status = prove_unit(device, row, problem->q_type);
        if (matrix && status == HEED_OK && row->arithmetic.weight_type) status = prove_unit(device, row, row->arithmetic.weight_type);
        if (matrix && status == HEED_OK) status = prove_local(device);
        if (lanes) status = prove_subgroup(device);
        if ((matrix || lanes) && status == HEED_OK) status = check_sizes(d, row, problem);
        if (status == HEED_OK) status = verdict_key(d, row, kind, problem, known.key);
        if (status == HEED_OK) status = verdict_of(device, problem, row, kind, &known);
        pthread_mutex_unlock(&d->admission);
    }
    if (status == HEED_OK && matrix) note_unit(device);
    if (status != HEED_OK) first_line(heed_error_message(), reason, capacity);
    return status;
}
