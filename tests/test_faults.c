/* SPDX-License-Identifier: MIT
 * test_faults.c - every allocation of every public function fails once, and from then on for ever: OUT_OF_MEMORY, outputs untouched, nothing
 * leaked, and the same context then gives the same bits.
 */
#include "counting.h"
#include "harness_parts.h"
#include <malloc.h>

/* ---- an allocator that fails ------------------------------------------------------------ */

struct meter {
    int64_t live, calls, fail_at; /* fail_at 0: never; n: the n-th call from now */
    bool for_ever, failed;
};

static void *meter_alloc(void *user, size_t bytes, size_t alignment)
{
    struct meter *m = user;
    m->calls++;
    if (m->fail_at && (m->calls == m->fail_at || (m->for_ever && m->calls > m->fail_at))) {
        m->failed = true;
        return NULL;
    }
    void *block = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (block) {
        memset(block, 0xEE, malloc_usable_size(block)); /* nothing may count on zeros that it did not ask for */
        m->live++;
    }
    return block;
}

static void meter_free(void *user, void *block)
{
    struct meter *m = user;
    if (!block) return;
    m->live--;
    free(block);
}

static void meter_set(struct meter *m, int64_t fail_at, bool for_ever)
{
    m->calls = 0;
    m->failed = false;
    m->fail_at = fail_at;
    m->for_ever = for_ever;
}

/* ---- the calls --------------------------------------------------------------------------- */

struct world {
    struct meter meter;
    heed_allocator allocator;
    heed_context_options options;
    heed_context *context;
    struct instance *in;
    struct prepared prepared; /* plan, batch and workspace on the context */
};

typedef heed_status call_fn(struct world *w); /* leaves nothing behind but what it found */

static heed_status create_context(struct world *w)
{
    heed_context *context = NULL;
    heed_status status = heed_context_create(&w->options, &context);
    if (status == HEED_OK) heed_context_destroy(context);
    return status;
}

static heed_status create_plan(struct world *w)
{
    heed_plan *plan = NULL;
    heed_status status = heed_plan_create(w->context, 0, &w->in->line.desc, "reference", &plan);
    if (status == HEED_OK) heed_plan_destroy(plan);
    return status;
}

static heed_status create_batch(struct world *w)
{
    heed_batch *batch = NULL;
    heed_status status = heed_batch_create(w->prepared.plan, &w->in->lengths, &batch);
    if (status == HEED_OK) heed_batch_destroy(batch);
    return status;
}

static heed_status update_batch(struct world *w) { return heed_batch_update(w->prepared.batch, &w->in->lengths); }
static heed_status run_once(struct world *w) { return prepared_run(&w->prepared); }

static heed_status forward_once(struct world *w)
{
    return heed_forward(w->context, 0, &w->in->line.desc, &w->in->lengths, &w->in->tensors);
}

/* The plan that heed_forward keeps is dropped with its context: a context of its own each time. */
static heed_status forward_fresh(struct world *w)
{
    heed_context *context = NULL;
    heed_status status = heed_context_create(&w->options, &context);
    if (status != HEED_OK) return status;
    status = heed_forward(context, 0, &w->in->line.desc, &w->in->lengths, &w->in->tensors);
    heed_context_destroy(context);
    return status;
}

static heed_status check_once(struct world *w)
{
    heed_check_report report = {.struct_size = sizeof report};
    return heed_check(w->prepared.plan, NULL, &w->in->lengths, &w->in->tensors, &report);
}

static heed_status create_buffer(struct world *w)
{
    heed_buffer *buffer = NULL;
    heed_status status = heed_buffer_create(w->context, 0, 1000, &buffer);
    if (status == HEED_OK) heed_buffer_destroy(buffer);
    return status;
}

static heed_status parse_text(struct world *w)
{
    heed_desc desc;
    char text[300];
    heed_desc_format(&w->in->line.desc, text, sizeof text);
    return heed_desc_parse(text, &desc);
}

/* ---- loops over n --------------------------------------------------------------------------- */

static void world_open(struct world *w, const char *text, uint32_t validate_every)
{
    struct problem_line line;
    char why[256] = "";
    memset(w, 0, sizeof *w);
    w->allocator = (heed_allocator){&w->meter, meter_alloc, meter_free};
    w->options = (heed_context_options){.struct_size = sizeof w->options, .num_threads = 2, .flags = HEED_NO_OPENCL | HEED_NO_ENVIRONMENT,
                                        .allocator = &w->allocator, .cache_dir = "/tmp/heed-not-used", .validate_every = validate_every};
    cr_assert(line_parse(text, &line, why, sizeof why), "%s", why);
    w->in = instance_new(&line, INSTANCE_GUARD_AFTER, why, sizeof why);
    cr_assert(w->in != NULL, "%s", why);
    cr_assert(heed_context_create(&w->options, &w->context) == HEED_OK, "%s", heed_error_message());
    cr_assert(prepared_make(w->context, 0, NULL, w->in, false, &w->prepared) == HEED_OK, "%s", heed_error_message());
}

static void world_close(struct world *w, struct counts *counts)
{
    meter_set(&w->meter, 0, false);
    prepared_release(&w->prepared);
    heed_context_destroy(w->context);
    instance_free(w->in);
    count_check(counts, w->meter.live == 0, "test_faults.c: memory is left after everything was destroyed");
}

enum ways {
    ALLOCATES = 1,     /* at least one n must fail; without it none may */
    RUNS_FIRST = 2,    /* the run itself may have been done when something behind it fails: outputs are written */
    MAY_DO_WITHOUT = 4 /* a plan that cannot be kept for the next call is no failure */
};

/* n = 1, 2, ... until the call no longer meets the failure. */
static void fail_everywhere(const char *text, const char *name, call_fn *call, unsigned ways, uint32_t validate_every)
{
    struct counts counts = {0};
    struct world w;
    char what[200];
    world_open(&w, text, validate_every);
    instance_reset(w.in);
    const uint64_t untouched = instance_bits(w.in);
    count_check(&counts, prepared_run(&w.prepared) == HEED_OK, "test_faults.c: a first run");
    const uint64_t bits = instance_bits(w.in);
    int64_t failures = 0;
    if (ways & MAY_DO_WITHOUT) count_check(&counts, call(&w) == HEED_OK, name); /* what is kept for later is kept now */
    for (int mode = 0; mode < 2; mode++)
        for (int64_t n = 1; n < 2000; n++) {
            const int64_t live = w.meter.live;
            instance_reset(w.in);
            meter_set(&w.meter, n, mode == 1);
            const heed_status status = call(&w);
            const bool met = w.meter.failed;
            meter_set(&w.meter, 0, false);
            if (!met) {
                count_check(&counts, status == HEED_OK, name);
                break;
            }
            failures++;
            snprintf(what, sizeof what, "test_faults.c: %s, allocation %lld fails%s: status %d, %lld blocks left, outputs %s", name, (long long)n,
                     mode ? " for ever" : "", (int)status, (long long)(w.meter.live - live), instance_bits(w.in) == untouched ? "untouched" : "touched");
            bool good = status == HEED_OUT_OF_MEMORY && (ways & RUNS_FIRST || instance_bits(w.in) == untouched) && heed_error_message()[0];
            if (ways & MAY_DO_WITHOUT && status == HEED_OK) good = instance_bits(w.in) == bits;
            count_check(&counts, good && w.meter.live == live, what);
        }
    count_check(&counts, (failures > 0) == ((ways & ALLOCATES) != 0), "test_faults.c: whether this call allocates");
    instance_reset(w.in);
    count_check(&counts, prepared_run(&w.prepared) == HEED_OK && instance_bits(w.in) == bits, "test_faults.c: the context gives the same bits afterwards");
    world_close(&w, &counts);
    count_end(&counts);
}

static const char *const plain = "b2 hq4 hk2 d64 q20 kv90 causal lse";
static const char *const rich = "b3 hq4 hk2 d32 q9 kv60 ragged page=8 tree kvfirst=4 keyrange mask=bits lse";

Test(faults, create_context) { fail_everywhere(plain, "heed_context_create", create_context, ALLOCATES, 0); }
Test(faults, create_plan) { fail_everywhere(plain, "heed_plan_create", create_plan, ALLOCATES, 0); }
Test(faults, create_batch) { fail_everywhere(plain, "heed_batch_create", create_batch, ALLOCATES, 0); }
Test(faults, create_rich_batch) { fail_everywhere(rich, "heed_batch_create", create_batch, ALLOCATES, 0); }
Test(faults, update_batch) { fail_everywhere(rich, "heed_batch_update", update_batch, ALLOCATES, 0); }
Test(faults, run) { fail_everywhere(plain, "heed_run", run_once, 0, 0); }
Test(faults, run_rich) { fail_everywhere(rich, "heed_run", run_once, 0, 0); }
Test(faults, run_split) { fail_everywhere("hq4 hk2 d64 q1 kv3000 lse", "heed_run", run_once, 0, 0); }
Test(faults, run_validated) { fail_everywhere(rich, "heed_run, validated", run_once, ALLOCATES | RUNS_FIRST, 1); }
Test(faults, forward) { fail_everywhere("hq4 hk2 d64 q1 kv3000 lse", "heed_forward", forward_once, ALLOCATES | MAY_DO_WITHOUT, 0); }
Test(faults, forward_fresh) { fail_everywhere(rich, "heed_forward in a new context", forward_fresh, ALLOCATES | MAY_DO_WITHOUT, 0); }
Test(faults, check) { fail_everywhere(rich, "heed_check", check_once, ALLOCATES | RUNS_FIRST, 0); }
Test(faults, create_buffer) { fail_everywhere(plain, "heed_buffer_create", create_buffer, ALLOCATES, 0); }
Test(faults, parse) { fail_everywhere(plain, "heed_desc_parse", parse_text, 0, 0); }
