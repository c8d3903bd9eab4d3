/* SPDX-License-Identifier: MIT
 * args.c - one table of options, read four ways: to parse, to refuse a word that a verb does not know, to print the help, and (manual.c,
 * complete.c) to write man pages and completions for shells.
 */
#include "args.h"
#include "heed.h"
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INFO = 1, RUN = 2, CHECK = 4, BENCH = 8, ROOF = 16, SHOW = 32, CACHE = 64, EXPLORE = 128, TUNE = 256, ALL = 511 };
#define FLAG OPTION_FLAG
#define TEXT OPTION_TEXT
#define COUNT OPTION_COUNT
#define FROM_ONE OPTION_FROM_ONE

const struct verb verbs[] = {
    {"info", "", "versions, instruction set, threads, devices and why one is unusable", INFO, run_info},
    {"run", "--q FILE --k FILE --v FILE [WORDS]", "attention on arrays from .npy files", RUN, run_run},
    {"check", "[PROBLEM...]", "compute, and hold every element against its own error bound", CHECK, run_check},
    {"bench", "[PROBLEM...]", "check once, then time, beside the machine's own ceilings", BENCH, run_bench},
    {"tune", "[PROBLEM]", "try tile sizes of an OpenCL row, check them, time them, keep the winner in a file", TUNE, run_tune},
    {"roof", "", "the machine's ceilings: FMA peak, read bandwidth, launch round trip", ROOF, run_roof},
    {"show", "[WORDS]", "an attention pattern as a heat map: of files, or of a lesson", SHOW, run_show},
    {"explore", "", "the interactive lesson: move q, k and v by keys and see the pattern change", EXPLORE, run_explore},
    {"cache", "[--list | --clear]", "compiled OpenCL kernels on disk", CACHE, run_cache},
    {0},
};

const struct option_row option_rows[] = {
#define PLACE(field) offsetof(struct options, field)
    {"q", "FILE", "queries, [batch, len, heads, dim] or [len, heads, dim]", 0, TEXT, PLACE(q), RUN | SHOW | CHECK | EXPLORE},
    {"k", "FILE", "keys", 0, TEXT, PLACE(k), RUN | SHOW | CHECK | EXPLORE},
    {"v", "FILE", "values (show, explore: not needed)", 0, TEXT, PLACE(v), RUN | SHOW | CHECK | EXPLORE},
    {"mask", "FILE", "bool, broadcast to [batch, heads, q_len, kv_len]: false hides the key", 0, TEXT, PLACE(mask), RUN | SHOW | CHECK},
    {"bias", "FILE", "added to the logits, broadcast likewise; -inf hides the key", 0, TEXT, PLACE(bias), RUN | SHOW | CHECK},
    {"output", "FILE", "where the result goes (run: .npy, show: .png, tune: the tuning file, default: HEED_TUNING)", 'o', TEXT, PLACE(output), RUN | SHOW | TUNE},
    {"lse", "FILE", "write the logarithm of the sum of exponentials", 0, TEXT, PLACE(lse), RUN},
    {"scores", "FILE", "write the scores (stage: scores=0..3, default 3 = probabilities)", 0, TEXT, PLACE(scores), RUN},
    {"key-sums", "FILE", "write how much weight each key got (words: srows=N the last queries only, sumheads all heads in one row)", 0, TEXT, PLACE(key_sums), RUN},
    {"tokens", "FILE", "labels of rows and columns, one a line", 0, TEXT, PLACE(tokens), SHOW | EXPLORE},
    {"head", "N", "this query head (default: the first)", 0, COUNT, PLACE(head), SHOW | EXPLORE},
    {"mean", NULL, "the mean over all heads", 0, FLAG, PLACE(mean), SHOW},
    {"sums", NULL, "how much weight each key got from all queries (srows=N: the last ones), as bars", 0, FLAG, PLACE(sums), SHOW},
    {"color", "HOW", "auto, 24bit, 256, 16 or never (auto: by NO_COLOR, TERM, COLORTERM)", 0, TEXT, PLACE(color), SHOW | EXPLORE},
    {"zoom", "N", "pixels per element in the picture", 0, FROM_ONE, PLACE(zoom), SHOW},
    {"cases", "DIR", "every folder with a case.json below DIR", 0, TEXT, PLACE(cases), CHECK},
    {"against", "LIST", "reference, cpu, opencl: what to compare with (default reference)", 0, TEXT, PLACE(against), CHECK},
    {"suite", "LIST", "prefill, decode, small, models, goals, scores, all", 0, TEXT, PLACE(suite), BENCH},
    {"peers", NULL, "other implementations too, interleaved in the same run", 0, FLAG, PLACE(peers), BENCH},
    {"naive", NULL, "on OpenCL devices the table's last row beside the chosen one, and the worst ratio", 0, FLAG, PLACE(naive), BENCH},
    {"start", NULL, "no runs: how long until a plan is ready, cold, with warm caches, and again", 0, FLAG, PLACE(start), BENCH},
    {"queued", "N", "on OpenCL devices N runs on one queue and one wait; a time is that of one of them", 0, FROM_ONE, PLACE(queued), BENCH},
    {"plot", "FILE", "curves over the keys, by gnuplot: .svg, .png or .pdf; .dat and .gp beside it", 0, TEXT, PLACE(plot), BENCH},
    {"save", "FILE", "the rows as JSON into FILE too", 0, TEXT, PLACE(save), BENCH},
    {"list", NULL, "what is there (default)", 0, FLAG, PLACE(list), CACHE},
    {"clear", NULL, "remove it", 0, FLAG, PLACE(clear), CACHE},
    {"device", "NAME", "cpu, opencl[:N], part of a name, or all (default: HEED_DEVICE, else run, show: cpu, tune: opencl, others: all)", 0, TEXT, PLACE(device), RUN | CHECK | BENCH | ROOF | SHOW | TUNE},
    {"kernel", "ROW", "insist on a row of the table for its own kind of step, e.g. cpu.avx2.decode", 0, TEXT, PLACE(kernel), RUN | CHECK | BENCH | TUNE},
    {"threads", "N", "of the built-in pool (default: physical cores)", 0, FROM_ONE, PLACE(threads), ALL & ~(CACHE | EXPLORE)},
    {"json", NULL, "one array of objects on standard output", 0, FLAG, PLACE(json), INFO | RUN | CHECK | BENCH | ROOF | CACHE | TUNE},
    {"help", NULL, "this text", 'h', FLAG, PLACE(help), ALL},
    {0},
#undef PLACE
};

static const struct { const char *name, *words; } option_values[] = {
    {"color", "auto 24bit 256 16 never"},
    {"against", "reference cpu opencl"},
    {"suite", "prefill decode small models goals scores all"},
    {"device", "cpu opencl all"},
};

const char *option_words(const struct option_row *row)
{
    for (size_t n = 0; n < sizeof option_values / sizeof *option_values; n++)
        if (!strcmp(row->name, option_values[n].name)) return option_values[n].words;
    return NULL;
}

const struct environment_row environment_rows[] = {
    {"HEED_DEVICE", "the device where no --device says another: cpu, opencl:0, part of a name"},
    {"HEED_THREADS", "threads of the built-in pool"},
    {"HEED_CPU", "highest instruction set to use: scalar, vector, avx2, avx512, avx512vbmi, avx512bf16, amx; on ARM neon, neonbf16"},
    {"HEED_CACHE_DIR", "folder of compiled kernels and of verdicts on OpenCL rows; off: memory only"},
    {"HEED_LOG", "0 errors, 1 warnings, 2 information, 3 everything, on standard error"},
    {"HEED_VALIDATE", "n: every n-th run is computed again by the other wing and compared"},
    {"HEED_TUNING", "file with tile sizes of devices"},
    {"NO_COLOR", "set and not empty: no colours"},
    {0},
};

const char *option_exit_codes = "0 ok, 1 a check failed, 2 usage or bad input, 3 no such device, 4 a device or internal failure";

/* "--name", "--name=value" or "-x". NULL: not in the table. */
static const struct option_row *find_row(const char *word, const char **value)
{
    *value = NULL;
    for (const struct option_row *row = option_rows; row->name; row++) {
        if (word[1] == row->letter && row->letter && !word[2]) return row;
        if (word[1] != '-') continue;
        const size_t length = strlen(row->name);
        if (strncmp(word + 2, row->name, length)) continue;
        if (word[2 + length] == '=') *value = word + 3 + length;
        if (!word[2 + length] || *value) return row;
    }
    return NULL;
}

static int refuse(const struct verb *verb, const char *what, const char *word)
{
    fprintf(stderr, "heed %s: %s %s (see heed %s --help)\n", verb->name, what, word, verb->name);
    return EXIT_USAGE;
}

static int set_option(const struct verb *verb, const struct option_row *row, const char *value, struct options *options)
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
        if (row->sort == OPTION_FROM_ONE && number == 0) {
            fprintf(stderr, "heed %s: --%s 0: it is a number from 1 (see heed %s --help)\n", verb->name, row->name, verb->name);
            return EXIT_USAGE;
        }
        *(int32_t *)place = (int32_t)number;
    }
    return 0;
}

/* A word with blanks is a problem of its own; single words in a row make one together. */
static int add_words(const struct verb *verb, const char *words, bool *joins, struct options *options)
{
    if (!words[strspn(words, " \t\r\n")]) { /* a variable that was never set would be the default problem */
        fprintf(stderr, "heed %s: an empty problem or word: \"%s\" (see heed %s --help)\n", verb->name, words, verb->name);
        return EXIT_USAGE;
    }
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

bool verb_takes_problems(const struct verb *verb) { return (verb->bit & (CHECK | BENCH | TUNE)) != 0; }
bool verb_takes_words(const struct verb *verb) { return (verb->bit & (RUN | SHOW)) != 0; }

static bool is_problem_word(const char *word)
{
    heed_desc desc;
    return *word && heed_desc_parse(word, &desc) == HEED_OK;
}

int options_read(const struct verb *verb, int argc, char **argv, struct options *options)
{
    *options = (struct options){.head = -1};
    const bool takes_words = verb_takes_problems(verb) || verb_takes_words(verb);
    bool joins = false;
    for (int n = 0; n < argc; n++) {
        if (argv[n][0] != '-') {
            if (!takes_words) return refuse(verb, "does not take the word", argv[n]);
            if (add_words(verb, argv[n], &joins, options)) return EXIT_USAGE;
            continue;
        }
        const char *value;
        const struct option_row *row = find_row(argv[n], &value);
        if (!row && takes_words && !strncmp(argv[n], "--", 2) && is_problem_word(argv[n] + 2)) return refuse(verb, "no dashes before a word of a problem:", argv[n]);
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

static void print_row(const struct option_row *row)
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
        printf("\nheed VERB --help tells more, heed --version the version; heed help --man and heed help --complete SHELL write what is installed.\n"
               "Exit codes: %s.\nEnvironment:", option_exit_codes);
        for (const struct environment_row *row = environment_rows; row->name; row++) printf(" %s", row->name);
        putchar('\n');
        return;
    }
    printf("heed %s%s%s [OPTIONS] - %s\n\n", verb->name, *verb->arguments ? " " : "", verb->arguments, verb->help);
    for (const struct option_row *row = option_rows; row->name; row++)
        if (row->verbs & verb->bit) print_row(row);
    if (verb_takes_problems(verb))
        puts("\nA PROBLEM is a line of words: b8 hq32 hk8 d128 q1 kv2048 f16 causal softcap=30 page=16 ...\n"
             "One argument with blanks is a problem of its own; single words in a row make one together.");
    if (verb_takes_words(verb))
        puts("\nWORDS say what is computed: causal topleft pos=17 wl=255 wr=0 scale=0.1 softcap=30 scores=3 alibi biasfirst lse2\n"
             "layout=bhld (files are [batch, heads, len, dim]) o=f16. Shapes and types come from the files.");
}
