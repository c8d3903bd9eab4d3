/* SPDX-License-Identifier: MIT
 * complete.c - completions for bash, zsh and fish, written from the tables of verbs, options and words; names of rows from the table of rows of this build.
 * `heed help`, which writes them and the man pages, is here too.
 */
#include "args.h"
#include "registry.h"
#include <stdio.h>
#include <string.h>

static bool is_path(const struct option_row *row) { return row->argument && (!strcmp(row->argument, "FILE") || !strcmp(row->argument, "DIR")); }
static bool is_kernel(const struct option_row *row) { return !strcmp(row->name, "kernel"); }

static void put_kernels(const struct backend *backend)
{
    for (int32_t n = 0; registry_row(backend, n); n++) printf("%s%s", n ? " " : "", registry_row(backend, n)->name);
}

/* The values of an option, parted by blanks. */
static void put_values(const struct option_row *row)
{
    const char *words = option_words(row);
    if (words) fputs(words, stdout);
    if (!is_kernel(row)) return;
    put_kernels(&cpu_backend);
#ifdef HEED_OPENCL
    putchar(' ');
    put_kernels(&opencl_backend);
#endif
}

static bool has_values(const struct option_row *row) { return option_words(row) || is_kernel(row); }

static void put_words(const struct verb *verb)
{
    bool first = true;
    if (!verb_takes_problems(verb) && !verb_takes_words(verb)) return;
    for (const struct problem_word *word = problem_words; word->words; word++) {
        if (verb_takes_words(verb) && !word->with_files) continue;
        printf("%s%s", first ? "" : " ", word->words);
        first = false;
    }
}


/* ---- bash ------------------------------------------------------------------ */

static const char bash_head[] =
    "# bash completion of heed, written by `heed help --complete bash`.\n"
    "_heed()\n{\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]} options= words= word\n"
    "    COMPREPLY=()\n"
    "    # bash parts words at \"=\".\n"
    "    if [[ $cur == = ]]; then cur=; elif [[ $prev == = && $COMP_CWORD -gt 2 ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi\n"
    "    if ((COMP_CWORD == 1)); then\n        mapfile -t COMPREPLY < <(compgen -W '";
static const char bash_tail[] =
    "    # The value of a word such as mask=bool.\n"
    "    if [[ ${COMP_WORDS[COMP_CWORD]} == = || ${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then\n"
    "        for word in $words; do\n"
    "            [[ $word == \"$prev=$cur\"* ]] && COMPREPLY+=(\"${word#*=}\")\n"
    "        done\n"
    "        return\n    fi\n"
    "    [[ $cur == -* ]] && words=$options\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
    "}\ncomplete -F _heed heed\n";

static void bash_option_values(void)
{
    puts("    case $prev in");
    for (const struct option_row *row = option_rows; row->name; row++) {
        if (!row->argument) continue;
        printf("        ");
        if (row->letter) printf("-%c | ", row->letter);
        printf("--%s) ", row->name);
        if (!strcmp(row->argument, "DIR")) printf("compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")");
        else if (is_path(row)) printf("compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")");
        else if (has_values(row)) {
            printf("mapfile -t COMPREPLY < <(compgen -W '");
            put_values(row);
            printf("' -- \"$cur\")");
        }
        puts(is_path(row) || has_values(row) ? "; return ;;" : "return ;;");
    }
    puts("        --complete) mapfile -t COMPREPLY < <(compgen -W 'bash zsh fish' -- \"$cur\"); return ;;\n    esac");
}

static void bash(void)
{
    fputs(bash_head, stdout);
    for (const struct verb *verb = verbs; verb->name; verb++) printf("%s ", verb->name);
    puts("help --help --version' -- \"$cur\")\n        return\n    fi");
    puts("    case $verb in");
    for (const struct verb *verb = verbs; verb->name; verb++) {
        printf("        %s)\n            options='", verb->name);
        bool first = true;
        for (const struct option_row *row = option_rows; row->name; row++) {
            if (!(row->verbs & verb->bit)) continue;
            printf("%s--%s", first ? "" : " ", row->name);
            first = false;
        }
        printf("'\n            words='");
        put_words(verb);
        puts("' ;;");
    }
    puts("        help) options='--man --complete --words' ;;\n    esac");
    bash_option_values();
    fputs(bash_tail, stdout);
}

/* ---- zsh ------------------------------------------------------------------- */

/* Inside single quotes; brackets and colons end what they stand in. */
static void zsh_text(const char *text, const char *hard)
{
    for (; *text; text++) {
        if (strchr(hard, *text)) putchar('\\');
        if (*text == '\'') fputs("'\\''", stdout);
        else putchar(*text);
    }
}

static void zsh_option(const struct option_row *row)
{
    if (row->letter) printf("            '(-%c --%s)'{-%c%s,--%s%s}'[", row->letter, row->name, row->letter, row->argument ? "+" : "", row->name, row->argument ? "=" : "");
    else printf("            '--%s%s[", row->name, row->argument ? "=" : "");
    zsh_text(row->help, "[]:\\");
    putchar(']');
    if (row->argument) printf(":%s:", row->argument);
    if (row->argument && !strcmp(row->argument, "DIR")) printf("_files -/");
    else if (is_path(row)) printf("_files");
    else if (has_values(row)) {
        putchar('(');
        put_values(row);
        putchar(')');
    } else if (row->argument) putchar(' ');
    puts("' \\");
}

static void zsh(void)
{
    puts("#compdef heed\n# zsh completion of heed, written by `heed help --complete zsh`.\n_heed()\n{\n    local -a verbs\n    verbs=(");
    for (const struct verb *verb = verbs; verb->name; verb++) {
        printf("        '%s:", verb->name);
        zsh_text(verb->help, ":\\");
        puts("'");
    }
    puts("        'help:the verbs, man pages, completions'\n    )\n    if ((CURRENT == 2)); then\n        _describe -t verbs verb verbs\n        return\n    fi\n"
         "    local verb=$words[2]\n    shift words\n    ((CURRENT--))\n    case $verb in");
    for (const struct verb *verb = verbs; verb->name; verb++) {
        printf("        %s) _arguments \\\n", verb->name);
        for (const struct option_row *row = option_rows; row->name; row++)
            if (row->verbs & verb->bit) zsh_option(row);
        if (verb_takes_problems(verb) || verb_takes_words(verb)) {
            printf("            '*:word:(");
            put_words(verb);
            printf(")'");
        } else printf("            '*::nothing more:'");
        puts(" ;;");
    }
    puts("        help) _arguments '--man[a man page in roff]' '--complete=[a completion]:SHELL:(bash zsh fish)' '--words[words of a problem]' ;;\n    esac\n}\n"
         "if [ \"$funcstack[1]\" = _heed ]; then _heed \"$@\"; else compdef _heed heed; fi");
}

/* ---- fish ------------------------------------------------------------------ */

static void fish_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

static void fish_option(const struct option_row *row)
{
    printf("complete -c heed -n '__fish_seen_subcommand_from");
    for (const struct verb *verb = verbs; verb->name; verb++)
        if (row->verbs & verb->bit) printf(" %s", verb->name);
    printf("' -l %s", row->name);
    if (row->letter) printf(" -s %c", row->letter);
    if (is_path(row)) printf(" -r -F");
    else if (row->argument) printf(" -x");
    if (has_values(row)) {
        printf(" -a '");
        put_values(row);
        putchar('\'');
    }
    printf(" -d '");
    fish_text(row->help);
    puts("'");
}

static void fish(void)
{
    puts("# fish completion of heed, written by `heed help --complete fish`.\ncomplete -c heed -f");
    for (const struct verb *verb = verbs; verb->name; verb++) {
        printf("complete -c heed -n __fish_use_subcommand -a %s -d '", verb->name);
        fish_text(verb->help);
        puts("'");
    }
    puts("complete -c heed -n __fish_use_subcommand -a help -d 'the verbs, man pages, completions'\ncomplete -c heed -n __fish_use_subcommand -l version -d 'the version'\n"
         "complete -c heed -n '__fish_seen_subcommand_from help' -l man -d 'a man page in roff'\n"
         "complete -c heed -n '__fish_seen_subcommand_from help' -l complete -x -a 'bash zsh fish' -d 'a completion'\n"
         "complete -c heed -n '__fish_seen_subcommand_from help' -l words -d 'words of a problem'");
    for (const struct option_row *row = option_rows; row->name; row++) fish_option(row);
    for (const struct verb *verb = verbs; verb->name; verb++) {
        if (!verb_takes_problems(verb) && !verb_takes_words(verb)) continue;
        printf("complete -c heed -n '__fish_seen_subcommand_from %s' -a '", verb->name);
        put_words(verb);
        puts("'");
    }
}

bool completion_print(const char *shell)
{
    if (!strcmp(shell, "bash")) bash();
    else if (!strcmp(shell, "zsh")) zsh();
    else if (!strcmp(shell, "fish")) fish();
    else return false;
    return true;
}

/* ---- heed help --------------------------------------------------------------- */

int help_verb(int argc, char **argv)
{
    const char *what = argc > 0 ? argv[0] : NULL;
    if (!what) print_help(NULL);
    else if (!strcmp(what, "--words") && argc == 1) {
        for (const struct problem_word *word = problem_words; word->words; word++) printf("%-44s  %s\n", word->words, word->meaning);
    } else if (!strcmp(what, "--man") && argc <= 2) {
        if (manual_print(argc == 2 ? argv[1] : NULL)) return EXIT_OK;
        fprintf(stderr, "heed help: no verb %s (see heed --help)\n", argv[1]);
        return EXIT_USAGE;
    } else if (!strcmp(what, "--complete") && argc == 2) {
        if (completion_print(argv[1])) return EXIT_OK;
        fprintf(stderr, "heed help: no completion for %s; there are bash, zsh, fish\n", argv[1]);
        return EXIT_USAGE;
    } else {
        const struct verb *verb = verbs;
        while (argc == 1 && verb->name && strcmp(verb->name, what)) verb++;
        if (argc != 1 || !verb->name) {
            fprintf(stderr, "heed help: %s is not understood; there are: heed help [VERB | --man [VERB] | --complete SHELL | --words]\n", what);
            return EXIT_USAGE;
        }
        print_help(verb);
    }
    return EXIT_OK;
}
