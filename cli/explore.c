/* SPDX-License-Identifier: MIT
 * explore.c - `heed explore`: keys of the keyboard become actions of the model, the view draws it. Numbers are in explore_model.c, the screen is
 * in explore_view.c, the terminal in explore_terminal.c.
 */
#include "args.h"
#include <stdio.h>

#ifdef HEED_NCURSES
#include "explore_lessons.h"
#include "explore_view.h"
#include "tool.h"
#include <curses.h>
#include <string.h>
#include <unistd.h>

static enum action action_of(int key)
{
    static const struct {
        int key;
        enum action action;
    } table[] = {
        {KEY_UP, ACTION_UP}, {KEY_DOWN, ACTION_DOWN}, {KEY_LEFT, ACTION_LEFT}, {KEY_RIGHT, ACTION_RIGHT},
        {'k', ACTION_UP}, {'j', ACTION_DOWN}, {'h', ACTION_LEFT}, {'l', ACTION_RIGHT},
        {'+', ACTION_MORE}, {'=', ACTION_MORE}, {'-', ACTION_LESS}, {'_', ACTION_LESS}, {KEY_PPAGE, ACTION_MUCH_MORE}, {KEY_NPAGE, ACTION_MUCH_LESS},
        {'0', ACTION_ZERO}, {'!', ACTION_NEGATE}, {'\t', ACTION_NEXT_QUERY}, {KEY_BTAB, ACTION_LAST_QUERY},
        {'c', ACTION_CAUSAL}, {'s', ACTION_SCALED}, {'t', ACTION_COOLER}, {'T', ACTION_WARMER},
        {'[', ACTION_LAST_HEAD}, {']', ACTION_NEXT_HEAD}, {'o', ACTION_SORTED},
    };
    for (size_t n = 0; n < sizeof table / sizeof *table; n++)
        if (table[n].key == key) return table[n].action;
    return ACTION_NONE;
}

/* Step n of the lesson; own files have one step. */
static heed_status load(struct explore *explore, const struct options *options, int step, char *message, size_t capacity)
{
    *message = 0;
    if (!options->q && step < explore_lesson_count() - 1) {
        if (!explore_load_lesson(explore, step)) return HEED_OUT_OF_MEMORY;
    } else {
        if (!explore_load_capture(explore, options->q, options->k, options->v, options->tokens, message, capacity)) return HEED_INVALID_ARGUMENT;
        if (options->head >= explore->q_heads) {
            snprintf(message, capacity, "--head %d: there are heads 0 to %d", (int)options->head, (int)explore->q_heads - 1);
            return HEED_INVALID_ARGUMENT;
        }
        explore->head = options->head > 0 ? options->head : 0;
        if (!options->q) explore->cursor.query = 9; /* `it` */
    }
    return explore_compute(explore);
}

/* Until q, or until something fails. */
static heed_status play(struct explore *explore, const struct options *options, struct scene *view, char *message, size_t capacity)
{
    heed_status status = HEED_OK;
    while (status == HEED_OK) {
        view_draw(explore, view);
        const int key = terminal_key(), last = explore_lesson_count() - 1;
        if (key == 'q' || key == 'Q' || key == -1) break;
        int step = view->step;
        switch (key) {
        case 'm': view->page = view->page == PAGE_MAP ? PAGE_NUMBERS : PAGE_MAP; continue;
        case '?': view->page = view->page == PAGE_KEYS ? PAGE_NUMBERS : PAGE_KEYS; continue;
        case 'n': step = options->q || step == last ? step : step + 1; break;
        case 'p': step = options->q || step == 0 ? step : step - 1; break;
        case 'r': break;
        default:
            if (view->page == PAGE_KEYS && key != KEY_RESIZE) view->page = PAGE_NUMBERS;
            else status = explore_act(explore, action_of(key));
            continue;
        }
        if (step != view->step || key == 'r') status = load(explore, options, step, message, capacity);
        view->step = step;
        view->page = PAGE_NUMBERS;
    }
    return status;
}

static int fail(heed_status status, const char *message)
{
    if (!*message) return tool_fail(status, "explore");
    fprintf(stderr, "heed explore: %s\n", message);
    return EXIT_USAGE;
}

static int explore_with(heed_context *context, const struct options *options, enum color color)
{
    struct explore explore = {.context = context};
    struct scene view = {.color = color, .own_files = options->q != NULL, .step = options->q ? explore_lesson_count() - 1 : 0};
    char message[256];
    heed_status status = load(&explore, options, view.step, message, sizeof message);
    int code = status == HEED_OK ? EXIT_OK : fail(status, message);
    if (code == EXIT_OK && !terminal_open(color)) code = EXIT_USAGE;
    else if (code == EXIT_OK) {
        status = play(&explore, options, &view, message, sizeof message);
        terminal_close();
        if (status != HEED_OK) code = fail(status, message);
    }
    explore_free(&explore);
    return code;
}

int run_explore(const struct options *options)
{
    enum color color;
    heed_context *context;
    if (!color_from(options->color, &color)) {
        fprintf(stderr, "heed explore: --color %s: there are auto, 24bit, 256, 16 and never\n", options->color);
        return EXIT_USAGE;
    }
    if (!options->q != !options->k || ((options->v || options->tokens) && !options->q)) {
        fputs("heed explore: --q and --k belong together, --v and --tokens to them (without files there is a capture to walk through)\n", stderr);
        return EXIT_USAGE;
    }
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        fputs("heed explore: wants a terminal for its keys and its screen; for a pattern as text or picture: heed show, heed show -o map.png\n", stderr);
        return EXIT_USAGE;
    }
    /* One thread: signals find it, and small numbers need no more. The screen is no place for log lines. */
    const heed_context_options given = {.struct_size = sizeof given, .num_threads = 1, .flags = HEED_NO_OPENCL};
    const heed_status status = heed_context_create(&given, &context);
    if (status != HEED_OK) return tool_fail(status, "no context");
    const int code = explore_with(context, options, color);
    heed_context_destroy(context);
    return code;
}
#else
int run_explore(const struct options *options)
{
    (void)options;
    fputs("heed explore: this build has no ncurses (install libncurses-dev and build again); for a pattern as text or picture: heed show\n", stderr);
    return EXIT_USAGE;
}
#endif
