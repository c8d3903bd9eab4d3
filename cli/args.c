/* SPDX-License-Identifier: MIT
 * args.c - one table of options, read three ways: to parse, to refuse a word that a verb does not know, and to print the help.
 */
#include "args.h"
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INFO = 1, RUN = 2, CHECK = 4, BENCH = 8, ROOF = 16, SHOW = 32, CACHE = 64, EXPLORE = 128, ALL = 255 };

const struct verb verbs[] = {
    {"info", "", "versions, instruction set, threads, devices and why one is unusable", INFO, run_info},
    {"run", "--q FILE --k FILE --v FILE [WORDS]", "attention on arrays from .npy files", RUN, run_run},
    {"check", "[PROBLEM...]", "compute, and hold every element against its own error bound", CHECK, run_check},
    {"bench", "[PROBLEM...]", "check once, then time, beside the machine's own ceilings", BENCH, run_bench},
    {"roof", "", "the machine's ceilings: FMA peak, read bandwidth, launch round trip", ROOF, run_roof},
    {"show", "[WORDS]", "an attention pattern as a heat map: of files, or of a lesson", SHOW, run_show},
    {"explore", "", "the interactive lesson: move q, k and v by keys and see the pattern change", EXPLORE, run_explore},
    {"cache", "[--list | --clear]", "compiled OpenCL kernels on disk", CACHE, run_cache},
    {0},
};

enum sort { FLAG, TEXT, COUNT };

static const struct row {
    const char *name, *argument, *help;
    char letter;
    enum sort sort;
    size_t place;
    uint32_t verbs;
} rows[] = {
#define PLACE(field) offsetof(struct options, field)
    {"q", "FILE", "queries, [batch, len, heads, dim] or [len, heads, dim]", 0, TEXT, PLACE(q), RUN | SHOW | CHECK | EXPLORE},
    {"k", "FILE", "keys", 0, TEXT, PLACE(k), RUN | SHOW | CHECK | EXPLORE},
    {"v", "FILE", "values (show, explore: not needed)", 0, TEXT, PLACE(v), RUN | SHOW | CHECK | EXPLORE},
    {"mask", "FILE", "bool, broadcast to [batch, heads, q_len, kv_len]: false hides the key", 0, TEXT, PLACE(mask), RUN | SHOW | CHECK},
    {"bias", "FILE", "added to the logits, broadcast likewise; -inf hides the key", 0, TEXT, PLACE(bias), RUN | SHOW | CHECK},
    {"output", "FILE", "where the result goes (run: .npy, show: .png)", 'o', TEXT, PLACE(output), RUN | SHOW},
    {"lse", "FILE", "write the logarithm of the sum of exponentials", 0, TEXT, PLACE(lse), RUN},
    {"scores", "FILE", "write the scores (stage: scores=0..3, default 3 = probabilities)", 0, TEXT, PLACE(scores), RUN},
    {"tokens", "FILE", "labels of rows and columns, one a line", 0, TEXT, PLACE(tokens), SHOW | EXPLORE},
    {"head", "N", "this query head (default: the first)", 0, COUNT, PLACE(head), SHOW | EXPLORE},
    {"mean", NULL, "the mean over all heads", 0, FLAG, PLACE(mean), SHOW},
    {"color", "HOW", "auto, 24bit, 256, 16 or never (auto: by NO_COLOR, TERM, COLORTERM)", 0, TEXT, PLACE(color), SHOW | EXPLORE},
    {"zoom", "N", "pixels per element in the picture", 0, COUNT, PLACE(zoom), SHOW},
    {"cases", "DIR", "every folder with a case.json below DIR", 0, TEXT, PLACE(cases), CHECK},
    {"against", "LIST", "reference, cpu, opencl: what to compare with (default reference)", 0, TEXT, PLACE(against), CHECK},
    {"suite", "LIST", "prefill, decode, small, models, all", 0, TEXT, PLACE(suite), BENCH},
    {"peers", NULL, "other implementations too, interleaved in the same run", 0, FLAG, PLACE(peers), BENCH},
    {"plot", "FILE", "a bar chart as .svg", 0, TEXT, PLACE(plot), BENCH},
    {"save", "FILE", "the rows as JSON into FILE too", 0, TEXT, PLACE(save), BENCH},
    {"list", NULL, "what is there (default)", 0, FLAG, PLACE(list), CACHE},
    {"clear", NULL, "remove it", 0, FLAG, PLACE(clear), CACHE},
    {"device", "NAME", "cpu, opencl[:N], part of a name, or all (default: HEED_DEVICE, else run, show: cpu, others: all)", 0, TEXT, PLACE(device), RUN | CHECK | BENCH | ROOF | SHOW},
    {"kernel", "ROW", "insist on a row of the table for its own kind of step, e.g. cpu.avx2.decode", 0, TEXT, PLACE(kernel), RUN | CHECK | BENCH},
    {"threads", "N", "of the built-in pool (default: physical cores)", 0, COUNT, PLACE(threads), ALL & ~(CACHE | EXPLORE)},
    {"json", NULL, "one array of objects on standard output", 0, FLAG, PLACE(json), INFO | RUN | CHECK | BENCH | ROOF | CACHE},
    {"help", NULL, "this text", 'h', FLAG, PLACE(help), ALL},
#undef PLACE
};
enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

/* "--name", "--name=value" or "-x". NULL: not in the table. */
static const struct row *find_row(const char *word, const char **value)
{
    *value = NULL;
    for (int n = 0; n < ROW_COUNT; n++) {
        if (word[1] == rows[n].letter && rows[n].letter && !word[2]) return &rows[n];
        if (word[1] != '-') continue;
        const size_t length = strlen(rows[n].name);
        if (strncmp(word + 2, rows[n].name, length)) continue;
        if (word[2 + length] == '=') *value = word + 3 + length;
        if (!word[2 + length] || *value) return &rows[n];
    }
    return NULL;
}

static int refuse(const struct verb *verb, const char *what, const char *word)
{
    fprintf(stderr, "heed %s: %s %s (see heed %s --help)\n", verb->name, what, word, verb->name);
    return EXIT_USAGE;
}

static int set_option(const struct verb *verb, const struct row *row, const char *value, struct options *options)
{
    void *place = (char *)options + row->place;
    if (row->sort == FLAG) {
        *(bool *)place = true;
    } else if (row->sort == TEXT) {
        if (!*value) return refuse(verb, "an empty value for", row->name);
        *(const char **)place = value;
    } else {
        char *end;
        errno = 0;
        const long number = strtol(value, &end, 10);
        if (!*value || *end || errno || number < 0 || number > INT_MAX) return refuse(verb, "not a count:", value);
        *(int32_t *)place = (int32_t)number;
    }
    return 0;
}

/* A word with blanks is a problem of its own; single words in a row make one together. */
static int add_words(const struct verb *verb, const char *words, bool *joins, struct options *options)
{
    const bool whole = strchr(words, ' ') != NULL || strchr(words, '\n') != NULL;
    if (*joins && !whole) {
        char **last = &options->problems[options->problem_count - 1];
        const size_t length = strlen(*last), more = strlen(words);
        char *joined = realloc(*last, length + more + 2);
        if (!joined) return refuse(verb, "out of memory at", words);
        joined[length] = ' ';
        memcpy(joined + length + 1, words, more + 1);
        *last = joined;
        return 0;
    }
    if (options->problem_count == MAX_PROBLEMS) return refuse(verb, "too many problems at", words);
    char *copy = strdup(words);
    if (!copy) return refuse(verb, "out of memory at", words);
    options->problems[options->problem_count++] = copy;
    *joins = !whole;
    return 0;
}

int options_read(const struct verb *verb, int argc, char **argv, struct options *options)
{
    *options = (struct options){.head = -1};
    bool joins = false, takes_words = (verb->bit & (RUN | CHECK | BENCH | SHOW)) != 0;
    for (int n = 0; n < argc; n++) {
        if (argv[n][0] != '-') {
            if (!takes_words) return refuse(verb, "does not take the word", argv[n]);
            if (add_words(verb, argv[n], &joins, options)) return EXIT_USAGE;
            continue;
        }
        const char *value;
        const struct row *row = find_row(argv[n], &value);
        if (!row) return refuse(verb, "unknown option", argv[n]);
        if (!(row->verbs & verb->bit)) return refuse(verb, "does not take", argv[n]);
        if (row->sort == FLAG && value) return refuse(verb, "takes no value:", argv[n]);
        if (row->sort != FLAG && !value) {
            if (n + 1 == argc) return refuse(verb, "a value is missing behind", argv[n]);
            value = argv[++n];
        }
        if (set_option(verb, row, value, options)) return EXIT_USAGE;
        joins = false;
    }
    return 0;
}

void options_free(struct options *options)
{
    for (int n = 0; n < options->problem_count; n++) free(options->problems[n]);
    options->problem_count = 0;
}

static void print_row(const struct row *row)
{
    char left[64];
    snprintf(left, sizeof left, "%s%c%s--%s%s%s", row->letter ? "-" : "", row->letter ? row->letter : ' ', row->letter ? ", " : "   ",
             row->name, row->argument ? " " : "", row->argument ? row->argument : "");
    printf("  %-20s %s\n", left, row->help);
}

void print_help(const struct verb *verb)
{
    if (!verb) {
        puts("heed - attention for inference, on CPUs and OpenCL devices, each checking the other\n\nheed VERB [OPTIONS]\n");
        for (verb = verbs; verb->name; verb++) printf("  %-8s %s\n", verb->name, verb->help);
        puts("\nheed VERB --help tells more, heed --version the version.\n"
             "Exit codes: 0 ok, 1 a check failed, 2 usage or bad input, 3 no such device, 4 a device or internal failure.\n"
             "Environment: HEED_DEVICE HEED_THREADS HEED_CPU HEED_CACHE_DIR HEED_LOG HEED_VALIDATE HEED_TUNING NO_COLOR");
        return;
    }
    printf("heed %s%s%s [OPTIONS] - %s\n\n", verb->name, *verb->arguments ? " " : "", verb->arguments, verb->help);
    for (int n = 0; n < ROW_COUNT; n++)
        if (rows[n].verbs & verb->bit) print_row(&rows[n]);
    if (verb->bit & (CHECK | BENCH))
        puts("\nA PROBLEM is a line of words: b8 hq32 hk8 d128 q1 kv2048 f16 causal softcap=30 page=16 ...\n"
             "One argument with blanks is a problem of its own; single words in a row make one together.");
    if (verb->bit & (RUN | SHOW))
        puts("\nWORDS say what is computed: causal topleft pos=17 wl=255 wr=0 scale=0.1 softcap=30 scores=3 alibi biasfirst lse2\n"
             "layout=bhld (files are [batch, heads, len, dim]) o=f16. Shapes and types come from the files.");
}
