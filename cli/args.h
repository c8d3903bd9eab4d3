/* SPDX-License-Identifier: MIT
 * args.h - the words of the command line, from one table: what each verb accepts, its help, its exit codes.
 */
#ifndef HEED_CLI_ARGS_H
#define HEED_CLI_ARGS_H

#include <stdbool.h>
#include <stdint.h>

enum exit_code { EXIT_OK = 0, EXIT_CHECK_FAILED = 1, EXIT_USAGE = 2, EXIT_NO_DEVICE = 3, EXIT_BROKEN = 4 };

enum { MAX_PROBLEMS = 64 };

struct options {
    bool help, json, peers, list, clear, mean;
    const char *device, *kernel;
    const char *q, *k, *v, *mask, *bias, *output, *lse, *scores; /* files */
    const char *cases, *against, *suite, *tokens, *plot, *save, *color;
    int32_t threads, head, zoom;                                 /* 0 = not given; head: -1 = not given */
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

/* Reads the words behind the verb. 0, or EXIT_USAGE after a line on standard error. What it made is freed by options_free(). */
int options_read(const struct verb *verb, int argc, char **argv, struct options *options);
void options_free(struct options *options);

/* Help for one verb, or with NULL for all of them. */
void print_help(const struct verb *verb);

int run_info(const struct options *options);
int run_run(const struct options *options);
int run_check(const struct options *options);
int run_bench(const struct options *options);
int run_roof(const struct options *options);
int run_show(const struct options *options);
int run_explore(const struct options *options);
int run_cache(const struct options *options);

#endif
