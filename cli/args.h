/* SPDX-License-Identifier: MIT
 * args.h - the words of the command line, from one table: what each verb accepts, its help, its exit codes.
 */
#ifndef HEED_CLI_ARGS_H
#define HEED_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_code { EXIT_OK = 0, EXIT_CHECK_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_DEVICE = 3, EXIT_BROKEN = 4 };

enum { MAX_PROBLEMS = 64 };

struct options {
    bool help, json, peers, naive, start, list, clear, mean, sums;
    const char *device, *kernel;
    const char *q, *k, *v, *mask, *bias, *output, *lse, *scores, *key_sums; /* files */
    const char *cases, *against, *suite, *tokens, *plot, *save, *color;
    int32_t threads, head, zoom, queued;                         /* 0 = not given; head: -1 = not given */
    char *problems[MAX_PROBLEMS];                                /* owned */
    int problem_count;
};

struct verb {
    const char *name, *arguments, *help;
    uint32_t bit;
    int (*run)(const struct options *options);
};

/* The verbs, ended by one without a name. */
extern const struct verb verbs[];
bool verb_takes_problems(const struct verb *verb); /* its bare words are problem strings */
bool verb_takes_words(const struct verb *verb);    /* ... words that say what is computed on files */

enum option_sort { OPTION_FLAG, OPTION_TEXT, OPTION_COUNT, OPTION_FROM_ONE };

/* The options, ended by one without a name. argument: FILE and DIR are paths, N is a number, NULL: none. */
struct option_row {
    const char *name, *argument, *help;
    char letter;
    enum option_sort sort;
    size_t place;   /* in struct options */
    uint32_t verbs; /* bits */
};
extern const struct option_row option_rows[];
/* Values it may have, or good ones to begin with, parted by blanks; NULL: no list. */
const char *option_words(const struct option_row *row);

struct environment_row { const char *name, *help; };
extern const struct environment_row environment_rows[];
extern const char *option_exit_codes; /* one line */

/* Words of a problem string, one of each sort with a number of its own where it has one (words.c), ended by one without a word. */
struct problem_word {
    const char *words, *meaning;
    bool with_files; /* also where shapes come from files */
};
extern const struct problem_word problem_words[];

/* Reads the words behind the verb. 0, or EXIT_USAGE after a line on standard error. What it made is freed by options_free(). */
int options_read(const struct verb *verb, int argc, char **argv, struct options *options);
void options_free(struct options *options);

/* Help for one verb, or with NULL for all of them. */
void print_help(const struct verb *verb);

/* heed help [--man [VERB] | --complete SHELL | --words]: the help, a man page in roff, a completion, the words of a problem; an exit code. */
int help_verb(int argc, char **argv);
bool manual_print(const char *verb);        /* manual.c; NULL: of the whole command; false: no such verb */
bool completion_print(const char *shell);   /* complete.c; false: no such shell */

int run_info(const struct options *options);
int run_run(const struct options *options);
int run_check(const struct options *options);
int run_bench(const struct options *options);
int run_tune(const struct options *options);
int run_roof(const struct options *options);
int run_show(const struct options *options);
int run_explore(const struct options *options);
int run_cache(const struct options *options);

#endif
