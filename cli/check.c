/* SPDX-License-Identifier: MIT
 * check.c - `heed check`: problem strings, stored cases or arrays from files, computed on every chosen device and held against their error
 * bounds, element by element. One line each; the count last.
 */
#include "arrays.h"
#include "table.h"
#include "tool.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A few of everything, where nothing is said: quick on any machine. */
static const char *const usual[] = {
    "hq4 hk2 d64 q33 kv65 causal lse",
    "b2 hq8 hk2 d128 q1 kv300 f16 causal lse",
    "b3 hq4 hk4 d80 q17 kv40 bf16 causal wl=16 wr=0 softcap=30 kvlens lse",
    "b2 hq6 hk2 d32 q5 kv70 f32 k=q8_0 v=q4_0 page=16 alibi sinks lse",
    "hq4 d64 dv32 q20 kv50 mask=bool bias=f16 scores=3 lse",
    NULL,
};

static const struct column columns[] = {{"verdict", "verdict", -7, 0}, {"worst_ratio", "err/bound", 9, 3}, {"device", "device", -17, 0},
                                        {"kernel", "kernel", -20, 0},  {"what", "problem", -10, 0},        {0}};

static const struct column columns_against[] = {
    {"verdict", "verdict", -7, 0},  {"worst_ratio", "err/bound", 9, 3},   {"device", "device", -17, 0}, {"kernel", "kernel", -20, 0},
    {"against", "against", -17, 0}, {"what", "problem", -10, 0}, {0}};

struct checker {
    struct tool tool;
    struct table table;
    bool broken;                        /* a case could not be read */
    int64_t passed, failed, skipped;
    int32_t against[MAX_DEVICES];       /* other devices; -1 = the reference */
    int against_count;
};

static const char *const verdict_names[] = {[VERDICT_PASS] = "pass", [VERDICT_FAIL] = "fail", [VERDICT_SKIP] = "skip"};

static void report_place(struct table *table, const heed_check_report *report)
{
    if (report->worst_batch < 0 || !report->elements) table_json(table, "place", NULL);
    else
        table_json(table, "place", json_pack("[I, I, I, I]", (json_int_t)report->worst_batch, (json_int_t)report->worst_head,
                                             (json_int_t)report->worst_token, (json_int_t)report->worst_dim));
}

/* One line of the table. `problem` is always a line that replays it, where there is one; `name` a stored case's. */
static void say(struct checker *checker, int32_t device, const char *problem, const char *name, const char *against,
                const struct outcome *outcome)
{
    struct table *table = &checker->table;
    const heed_check_report *report = &outcome->report;
    const bool computed = outcome->verdict != VERDICT_SKIP && report->elements > 0;
    char label[64];
    device_label(&checker->tool, device, label, sizeof label);
    table_text(table, "what", name ? name : problem);
    table_text(table, "problem", problem);
    table_text(table, "case", name);
    table_text(table, "device", label);
    table_text(table, "backend", device == 0 ? "cpu" : "opencl");
    table_text(table, "kernel", *outcome->kernel ? outcome->kernel : NULL);
    table_text(table, "against", against);
    table_text(table, "verdict", verdict_names[outcome->verdict]);
    table_number(table, "worst_ratio", computed ? report->worst_ratio : NAN);
    table_json(table, "elements", computed ? json_integer((json_int_t)report->elements) : NULL);
    table_json(table, "outside", computed ? json_integer((json_int_t)report->outside) : NULL);
    table_number(table, "got", computed ? report->got : NAN);
    table_number(table, "expected", computed ? report->expected : NAN);
    table_number(table, "bound", computed ? report->bound : NAN);
    report_place(table, report);
    table_text(table, "message", *outcome->message ? outcome->message : NULL);
    table_row(table);
    if (!table->json && *outcome->message && outcome->verdict != VERDICT_PASS) printf("         %s\n", outcome->message);
    if (outcome->verdict == VERDICT_PASS) checker->passed++;
    else if (outcome->verdict == VERDICT_FAIL) checker->failed++;
    else checker->skipped++;
}

/* An unusable device is a line, not a failure: its reason is the message. */
static bool usable(struct checker *checker, int32_t device, struct outcome *outcome)
{
    heed_device_info info = {.struct_size = sizeof info};
    memset(outcome, 0, sizeof *outcome);
    if (heed_device_get_info(checker->tool.context, device, &info) == HEED_OK && info.usable) return true;
    outcome->verdict = VERDICT_SKIP;
    snprintf(outcome->message, sizeof outcome->message, "unusable: %s", info.reason);
    return false;
}

static void outcome_of(heed_status status, struct outcome *outcome)
{
    outcome->verdict = status == HEED_OK ? VERDICT_PASS : status == HEED_UNSUPPORTED ? VERDICT_SKIP : VERDICT_FAIL;
    if (status != HEED_OK) snprintf(outcome->message, sizeof outcome->message, "%s", heed_error_message());
    memcpy(outcome->kernel, outcome->report.kernel, sizeof outcome->kernel);
}

/* One instance by two plans: on `device` and on `other` (-1 = the reference). */
static void compare(struct checker *checker, int32_t device, int32_t other, struct instance *instance, struct outcome *outcome)
{
    struct prepared prepared;
    heed_plan *against = NULL;
    outcome->report.struct_size = sizeof outcome->report;
    heed_status status = prepared_make(checker->tool.context, device, checker->tool.options->kernel, instance, false, &prepared);
    if (status != HEED_OK) {
        outcome_of(status, outcome);
        return;
    }
    if (other >= 0) status = heed_plan_create(checker->tool.context, other, &instance->line.desc, NULL, &against);
    if (status == HEED_OK) status = heed_check(prepared.plan, against, &instance->lengths, &prepared.tensors, &outcome->report);
    outcome_of(status, outcome);
    heed_plan_destroy(against);
    prepared_release(&prepared);
}

static void against_name(struct checker *checker, int32_t other, char *name, size_t capacity)
{
    if (other < 0) snprintf(name, capacity, "reference");
    else device_label(&checker->tool, other, name, capacity);
}

static void check_instance(struct checker *checker, struct instance *instance, const char *problem, const char *name)
{
    struct outcome outcome;
    for (int n = 0; n < checker->tool.device_count; n++)
        for (int a = 0; a < checker->against_count; a++) {
            const int32_t device = checker->tool.devices[n], other = checker->against[a];
            char against[64];
            if (other == device) continue;
            progress("check %s", problem);
            if (usable(checker, device, &outcome)) compare(checker, device, other, instance, &outcome);
            against_name(checker, other, against, sizeof against);
            say(checker, device, problem, name, against, &outcome);
        }
}

/* Against the reference the harness does more: guard pages, poison, the second run's bits. */
static void check_line(struct checker *checker, const struct problem_line *line)
{
    struct outcome outcome;
    char message[256];
    const bool reference = checker->against_count == 1 && checker->against[0] < 0;
    if (!reference) {
        struct instance *instance = instance_new(line, INSTANCE_PLAIN, message, sizeof message);
        if (instance) check_instance(checker, instance, line->text, NULL);
        else {
            fprintf(stderr, "heed check: %s: %s\n", line->text, message);
            checker->broken = true;
        }
        instance_free(instance);
        return;
    }
    for (int n = 0; n < checker->tool.device_count; n++) {
        const int32_t device = checker->tool.devices[n];
        progress("check %s", line->text);
        if (usable(checker, device, &outcome)) line_check(checker->tool.context, device, checker->tool.options->kernel, line, &outcome);
        say(checker, device, line->text, NULL, "reference", &outcome);
    }
}

static void check_case(struct checker *checker, const char *folder)
{
    char message[256], problem[LINE_BYTES];
    struct outcome outcome = {.verdict = VERDICT_SKIP};
    struct stored_case *stored = case_load(folder, INSTANCE_GUARD_AFTER, message, sizeof message);
    if (!stored) {
        fprintf(stderr, "heed check: %s: %s\n", folder, message);
        checker->broken = true;
        return;
    }
    if (stored->instance) line_format(&stored->instance->line, problem, sizeof problem);
    for (int n = 0; n < checker->tool.device_count; n++) {
        const int32_t device = checker->tool.devices[n];
        progress("check %s", stored->name);
        if (usable(checker, device, &outcome)) {
            if (stored->supported) case_check(checker->tool.context, device, checker->tool.options->kernel, stored, &outcome);
            else {
                outcome.verdict = VERDICT_SKIP;
                snprintf(outcome.message, sizeof outcome.message, "%s", stored->message);
            }
        }
        say(checker, device, stored->instance ? problem : NULL, stored->name, "stored", &outcome);
    }
    case_free(stored);
}

static int check_cases(struct checker *checker, const char *folder)
{
    char message[256];
    int32_t count;
    char **names = cases_list(folder, &count, message, sizeof message);
    if (!names) {
        fprintf(stderr, "heed check: %s\n", message);
        return EXIT_USAGE;
    }
    if (count == 0) {
        fprintf(stderr, "heed check: no case.json at or below %s\n", folder);
        checker->broken = true;
    }
    for (int32_t n = 0; n < count; n++) {
        check_case(checker, names[n]);
        free(names[n]);
    }
    free(names);
    return EXIT_OK;
}

static int check_files(struct checker *checker)
{
    struct arrays arrays;
    char problem[LINE_BYTES];
    if (!arrays_read(checker->tool.options, "", &arrays)) return EXIT_USAGE;
    line_format(&arrays.instance->line, problem, sizeof problem);
    check_instance(checker, arrays.instance, problem, checker->tool.options->q);
    arrays_free(&arrays);
    return EXIT_OK;
}

/* All lines are read before the first is computed: a typing mistake in the last one should not cost the wait for the others. */
static int check_lines(struct checker *checker, const char *const *texts, int count)
{
    static struct problem_line lines[MAX_PROBLEMS];
    for (int n = 0; n < count; n++)
        if (!problem_read(texts[n], &lines[n])) return EXIT_USAGE;
    for (int n = 0; n < count; n++) check_line(checker, &lines[n]);
    return EXIT_OK;
}

static int take_against(struct checker *checker, const char *list)
{
    for (const char *word = list; *word;) {
        const size_t length = strcspn(word, ",");
        const bool opencl = length == 6 && !strncmp(word, "opencl", 6);
        if (opencl) {
            const int32_t count = heed_device_count(checker->tool.context);
            for (int32_t n = 1; n < count && checker->against_count < MAX_DEVICES; n++) checker->against[checker->against_count++] = n;
            if (count == 1) {
                fputs("heed check: --against opencl: no OpenCL device here\n", stderr);
                return EXIT_NO_DEVICE;
            }
        } else if (length == 3 && !strncmp(word, "cpu", 3) && checker->against_count < MAX_DEVICES) {
            checker->against[checker->against_count++] = 0;
        } else if (length == 9 && !strncmp(word, "reference", 9) && checker->against_count < MAX_DEVICES) {
            checker->against[checker->against_count++] = -1;
        } else {
            fprintf(stderr, "heed check: --against %.*s: there are reference, cpu and opencl\n", (int)length, word);
            return EXIT_USAGE;
        }
        word += length;
        word += *word == ',';
    }
    return EXIT_OK;
}

static int check_all(struct checker *checker)
{
    const struct options *options = checker->tool.options;
    int code = take_against(checker, options->against ? options->against : "reference");
    if (code == 0 && options->cases) code = check_cases(checker, options->cases);
    if (code == 0 && (options->q || options->k || options->v)) code = check_files(checker);
    else if (code == 0 && options->problem_count)
        code = check_lines(checker, (const char *const *)options->problems, options->problem_count);
    else if (code == 0 && !options->cases)
        code = check_lines(checker, usual, (int)(sizeof usual / sizeof usual[0]) - 1);
    return code;
}

int run_check(const struct options *options)
{
    struct checker checker = {0};
    if (options->kernel && !kernel_known(options->kernel)) return EXIT_USAGE;
    int code = tool_open(&checker.tool, options, "all");
    if (code) return code;
    if (!table_begin(&checker.table, options->against ? columns_against : columns, options->json)) code = out_of_room();
    else code = check_all(&checker);
    if (!table_end(&checker.table) && code == 0) code = out_of_room();
    if (code == EXIT_OK) /* else nothing was computed, and three zeros would look like a result */
        fprintf(options->json ? stderr : stdout, "%lld passed, %lld failed, %lld skipped\n", (long long)checker.passed,
                (long long)checker.failed, (long long)checker.skipped);
    tool_close(&checker.tool);
    if (code) return code;
    if (checker.passed + checker.failed + checker.skipped == 0 && !checker.broken) {
        fputs("heed check: nothing was compared: --against names the device itself\n", stderr);
        return EXIT_USAGE;
    }
    return checker.failed ? EXIT_CHECK_FAILED : checker.broken ? EXIT_USAGE : EXIT_OK;
}
