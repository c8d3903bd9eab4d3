/* SPDX-License-Identifier: MIT
 * main.c - the `heed` command: find the verb, read its options, run it. What a verb does is in its own file.
 */
#include "args.h"
#include "heed.h"
#include <stdio.h>
#include <string.h>

static int unknown_verb(const char *name)
{
    fprintf(stderr, "heed: unknown verb %s; there are", name);
    for (const struct verb *verb = verbs; verb->name; verb++) fprintf(stderr, "%s %s", verb == verbs ? "" : ",", verb->name);
    fputs(" (see heed --help)\n", stderr);
    return EXIT_USAGE;
}

/* A full disk or a closed pipe must not look like success. */
static int flushed(int code)
{
    if (!fflush(stdout) && !ferror(stdout)) return code;
    perror("heed: standard output");
    return code ? code : EXIT_BROKEN;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs("heed: a verb is missing (see heed --help)\n", stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) return flushed(help_verb(argc - 2, argv + 2));
    if (!strcmp(argv[1], "--version")) {
        const unsigned version = heed_version();
        printf("heed %u.%u.%u\n", version / 10000, version / 100 % 100, version % 100);
        return flushed(EXIT_OK);
    }
    const struct verb *verb = verbs;
    while (verb->name && strcmp(verb->name, argv[1])) verb++;
    if (!verb->name) return unknown_verb(argv[1]);

    struct options options;
    int code = options_read(verb, argc - 2, argv + 2, &options);
    if (code == 0 && options.help) print_help(verb);
    else if (code == 0) code = verb->run(&options);
    options_free(&options);
    return flushed(code);
}
