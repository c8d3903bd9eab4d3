/* SPDX-License-Identifier: MIT
 * manual.c - man pages in roff from the tables of verbs, options, words and variables: one page for the command, one for each verb. No text about an
 * option is written here a second time.
 */
#include "args.h"
#include "heed.h"
#include <stdio.h>
#include <string.h>

#define MANUAL_DATE "2026-11-25" /* of the last change to these texts: fixed, so that two builds write the same bytes */

/* What a page says beyond the table: a paragraph, and lines to type. */
static const struct { const char *verb, *more, *examples; } texts[] = {
    {"info", "Lists what this process may use, and for each device that cannot be used the reason and what would help.", "heed info\nheed info --json\n"},
    {"run", "Reads q, k and v from .npy files of shape [batch, len, heads, dim] (three dimensions: one sequence), computes attention and writes o. With "
            "--device all every usable device computes; the first one's result is written, and how far the others are from it is printed.",
     "heed run --q q.npy --k k.npy --v v.npy causal -o o.npy\nheed run --q q.npy --k k.npy --v v.npy layout=bhld --device all -o o.npy --lse lse.npy\n"},
    {"check", "Computes each problem on each chosen device and holds every element of o and lse against its own derived error bound; the reference in double "
              "precision is the definition. The last line is `N passed, N failed, N skipped'.",
     "heed check --device all\nheed check \"b2 hq32 hk8 d128 q1 kv4096 f16 causal\" --device all\nheed check --cases reports/\n"},
    {"bench", "Checks a problem once, then times it, beside the arithmetic peak and the read bandwidth measured in the same minute. "
              "Figures taken while other programs run are noise; the command says so when it sees it.",
     "heed bench --suite prefill,decode\nheed bench \"hq32 hk8 d128 q1 kv16384 f16\" --device all --plot decode.svg\nheed bench --suite all --peers --save rows.json\n"},
    {"tune", "Tries tile sizes of the row that the planner takes for a problem. Each is probed, checked against the definition and timed; the fastest has to win again in turns with "
             "what is there, and then goes into the tuning file as a line for this device. Other lines stay. A line can cost speed and never a result.",
     "heed tune \"hq32 hk8 d128 q1024 f16 causal\" --device opencl -o tuning\nHEED_TUNING=tuning heed bench --suite prefill --device opencl\n"},
    {"roof", "Measures what the other figures are held against.", "heed roof --device all\n"},
    {"show", "Draws who attends to whom, in the terminal or as a picture. Without files it draws the small example of the lesson.",
     "heed show\nheed show --q q.npy --k k.npy --tokens tokens.txt --head 3\nheed show --q q.npy --k k.npy --mean -o map.png\n"},
    {"explore", "Seven steps from the dot product to a real capture, all numbers of q, k and v moved by keys; `?' shows the keys. It needs a terminal of 80 x 24.",
     "heed explore\nheed explore --q q.npy --k k.npy --tokens tokens.txt\n"},
    {"cache", "Lists or removes the compiled OpenCL kernels in the cache folder. Files that are not ours are left alone.", "heed cache --list\nheed cache --clear\n"},
};

/* Text as roff shows it literally: no macro at the beginning of a line, minus signs that can be copied. */
static void put(const char *text)
{
    bool begins = true;
    for (; *text; text++) {
        if (begins && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
        if (*text == '\\') fputs("\\e", stdout);
        else if (*text == '-') fputs("\\-", stdout);
        else if (*text == '\'') fputs("\\(aq", stdout);
        else putchar(*text);
        begins = *text == '\n';
    }
}

static void heading(const char *title) { printf(".SH %s\n", title); }

static void paragraph(const char *text)
{
    put(text);
    putchar('\n');
}

static void page_begins(const char *name, const char *help)
{
    const unsigned version = heed_version();
    char title[64];
    size_t n = 0;
    for (; name[n] && n + 1 < sizeof title; n++) title[n] = (char)(name[n] >= 'a' && name[n] <= 'z' ? name[n] - 'a' + 'A' : name[n]);
    title[n] = 0;
    printf(".\\\" Written by `heed help --man'; not to be edited.\n.TH %s 1 %s \"heed %u.%u.%u\" \"heed\"\n", title, MANUAL_DATE, version / 10000,
           version / 100 % 100, version % 100);
    heading("NAME");
    put(name);
    fputs(" \\- ", stdout);
    paragraph(help);
}

static void option(const struct option_row *row)
{
    fputs(".TP\n", stdout);
    if (row->letter) printf("\\fB\\-%c\\fR, ", row->letter);
    fputs("\\fB\\-\\-", stdout);
    put(row->name);
    fputs("\\fR", stdout);
    if (row->argument) printf(" \\fI%s\\fR", row->argument);
    putchar('\n');
    paragraph(row->help);
}

static void words(const struct verb *verb)
{
    const bool files = verb && verb_takes_words(verb);
    heading(files ? "WORDS" : "PROBLEM STRINGS");
    paragraph(files ? "They say what is computed; shapes and types come from the files."
                    : "A problem is a line of words parted by blanks, in any order; of two that contradict each other the later one holds; what is not said is off. "
                      "An argument with blanks is a problem of its own; single words in a row make one together.");
    for (const struct problem_word *word = problem_words; word->words; word++) {
        if (files && !word->with_files) continue;
        fputs(".TP\n\\fB", stdout);
        put(word->words);
        fputs("\\fR\n", stdout);
        paragraph(word->meaning);
    }
}

static void environment(void)
{
    heading("ENVIRONMENT");
    for (const struct environment_row *row = environment_rows; row->name; row++) {
        printf(".TP\n.B %s\n", row->name);
        paragraph(row->help);
    }
}

static void examples(const char *lines)
{
    heading("EXAMPLES");
    fputs(".nf\n", stdout);
    put(lines);
    fputs(".fi\n", stdout);
}

static void exit_status(void)
{
    heading("EXIT STATUS");
    put(option_exit_codes);
    fputs(".\n", stdout);
}

static void command_page(void)
{
    page_begins("heed", "attention for inference, on CPUs and OpenCL devices, each checking the other");
    heading("SYNOPSIS");
    fputs(".B heed\n.I verb\n.RI [ options ]\n.br\n.B heed help\n[\\fB\\-\\-man\\fR [\\fIverb\\fR] | \\fB\\-\\-complete\\fR \\fIshell\\fR | \\fB\\-\\-words\\fR]\n.br\n"
          ".B heed \\-\\-version\n", stdout);
    heading("DESCRIPTION");
    paragraph("Softmax attention with quantised caches, grouped heads, masks, windows, softcap, ALiBi, sinks, paged and ragged batches: computed, checked "
              "against error bounds, timed beside the machine's own ceilings, and drawn. Tables go to standard output, progress and warnings to standard "
              "error; every verb that prints a table takes --json.");
    heading("VERBS");
    for (const struct verb *verb = verbs; verb->name; verb++) {
        printf(".TP\n.BR heed\\-%s (1)\n", verb->name);
        paragraph(verb->help);
    }
    fputs(".TP\n.B heed help\nThe list of verbs; a man page in roff; a completion for bash, zsh or fish; the words of a problem string.\n", stdout);
    words(NULL);
    exit_status();
    environment();
    heading("FILES");
    fputs(".TP\n.I ~/.cache/heed\nCompiled kernels and verdicts, or\n.I heed\nbelow XDG_CACHE_HOME. The folder is refused if it is not ours.\n", stdout);
    examples("heed info\nheed check --device all\nheed bench --suite decode\nheed show\n");
}

static void verb_page(const struct verb *verb)
{
    char name[32];
    size_t text = 0;
    snprintf(name, sizeof name, "heed-%s", verb->name);
    page_begins(name, verb->help);
    heading("SYNOPSIS");
    printf(".B heed %s\n", verb->name);
    if (*verb->arguments) paragraph(verb->arguments);
    fputs(".RI [ options ]\n", stdout);
    while (text < sizeof texts / sizeof *texts && strcmp(texts[text].verb, verb->name)) text++;
    heading("DESCRIPTION");
    paragraph(text < sizeof texts / sizeof *texts ? texts[text].more : verb->help);
    heading("OPTIONS");
    for (const struct option_row *row = option_rows; row->name; row++)
        if (row->verbs & verb->bit) option(row);
    if (verb_takes_problems(verb) || verb_takes_words(verb)) words(verb);
    exit_status();
    environment();
    if (text < sizeof texts / sizeof *texts) examples(texts[text].examples);
    heading("SEE ALSO");
    fputs(".BR heed (1)\n", stdout);
}

bool manual_print(const char *name)
{
    const struct verb *verb = verbs;
    while (name && verb->name && strcmp(verb->name, name)) verb++;
    if (name && !verb->name) return false;
    if (name) verb_page(verb);
    else command_page();
    return true;
}
