/* SPDX-License-Identifier: MIT
 * explore_view.c - the explorer's pages in 80 x 24 and more: numbers, the map alone, the keys. What the terminal cannot do in colour it
 * does in characters. Nothing is computed here.
 */
#include "explore_view.h"
#include <curses.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

enum { LABEL = 8, NUMBER = 6, COLUMNS_OF_RELATION = 36, LEAST_BAR = 10, MAP_X = 36, MAP_LABEL = 6, TEXT_LINES = 3, FIXED_LINES = 11 };

struct layout {
    int rows;                          /* of keys, of values, of the small map */
    int32_t first_rank, first_query;   /* the first shown */
    int k_numbers, v_numbers;          /* of a row of q or k, of a row of v */
    int32_t k_first, v_first;
};

/* ---- letters and cells ------------------------------------------------------ */

/* A label in exactly `width` columns. It may come from a file: nothing that could steer the terminal is passed on. */
static void put_label(int y, int x, int width, const char *label)
{
    mbstate_t state = {0};
    wchar_t letter;
    int used = 0;
    move(y, x);
    while (*label) {
        size_t bytes = mbrtowc(&letter, label, strlen(label), &state);
        if (bytes == (size_t)-1 || bytes == (size_t)-2) memset(&state, 0, sizeof state), bytes = 1, letter = L'?';
        if (!iswprint((wint_t)letter)) letter = L'?';
        const int wide = wcwidth(letter) > 0 ? wcwidth(letter) : 0;
        if (used + wide > width) break;
        addnwstr(&letter, 1);
        used += wide;
        label += bytes;
    }
    for (; used < width; used++) addch(' ');
}

/* The n-th letter of a label, for the heads of columns. */
static void put_letter(int y, int x, const char *label, int n)
{
    mbstate_t state = {0};
    wchar_t letter = L' ';
    for (; n >= 0; n--) {
        letter = L' ';
        if (!*label) break;
        size_t bytes = mbrtowc(&letter, label, strlen(label), &state);
        if (bytes == (size_t)-1 || bytes == (size_t)-2) memset(&state, 0, sizeof state), bytes = 1, letter = L'?';
        label += bytes;
    }
    if (wcwidth(letter) != 1 || !iswprint((wint_t)letter)) letter = L'?';
    mvaddnwstr(y, x, &letter, 1);
}

static void put_number(int y, int x, int width, int digits, double value)
{
    char text[32];
    if (fabs(value) < 0.5 * pow(10, -digits)) value = 0; /* no -0.00 */
    snprintf(text, sizeof text, "%*.*f", width, digits, value);
    mvaddnstr(y, x, text, width);
}

/* A weight by its square root, so that a weak link beside a strong one is seen. */
static void put_cell(int y, int x, int wide, float weight, const struct scene *view)
{
    static const char ramp[] = " .:-=+*#%@";
    const bool colors = view->color != COLOR_NEVER && has_colors(), many = colors && view->color >= COLOR_256 && COLORS >= 256;
    const int steps = !colors ? (int)sizeof ramp - 1 : many ? 16 : 5;
    int step = weight > 0 ? (int)(sqrtf(weight) * (float)steps) : 0;
    if (step >= steps) step = steps - 1;
    if (colors) attron(COLOR_PAIR(step + 1));
    for (int n = 0; n < wide; n++) mvaddch(y, x + n, colors ? ' ' : (chtype)ramp[step]);
    if (colors) attroff(COLOR_PAIR(step + 1));
}

static int32_t first_of(int32_t chosen, int32_t count, int32_t room)
{
    const int32_t first = chosen - room / 2, last = count - room;
    return last <= 0 || first < 0 ? 0 : first > last ? last : first;
}

/* ---- head and foot ----------------------------------------------------------- */

static void draw_text(const char *text)
{
    for (int line = 1; line <= TEXT_LINES && *text; line++) {
        int take = (int)strlen(text);
        if (take > COLS - 1) {
            take = COLS - 1;
            while (take > 0 && text[take] != ' ') take--;
            if (take == 0) take = COLS - 1;
        }
        mvaddnstr(line, 0, text, take);
        text += take;
        while (*text == ' ') text++;
    }
}

static void draw_head(const struct scene *view)
{
    const struct lesson *lesson = explore_lesson(view->step);
    char title[160], text[LESSON_BYTES];
    if (view->own_files) snprintf(title, sizeof title, " heed explore   your capture");
    else snprintf(title, sizeof title, " heed explore   step %d of %d: %s", view->step + 1, explore_lesson_count(), lesson->title);
    attron(A_REVERSE);
    mvprintw(0, 0, "%-*.*s", COLS, COLS, title);
    if (COLS >= 60) mvaddstr(0, COLS - 20, "? keys  q quit      ");
    attroff(A_REVERSE);
    if (view->page == PAGE_NUMBERS && !view->own_files) draw_text(explore_lesson_text(view->step, false, text));
    else if (view->page == PAGE_NUMBERS) draw_text("Queries, keys and values from your files. [ and ] change the head, Tab the query, o sorts the keys by weight, m shows the map.");
}

static void draw_settings(const struct explore *explore, int y)
{
    char scale[32];
    snprintf(scale, sizeof scale, explore->scaled ? "1/sqrt(%d)" : "off", (int)explore->dim);
    mvprintw(y, 0, "head %d of %d   scale %s   T %g   causal mask %s   keys by %s", (int)explore->head, (int)explore->q_heads, scale,
             (double)explore_temperatures[explore->temperature], explore->causal ? "on" : "off", explore->sorted ? "weight" : "number");
}

static void draw_foot(const struct scene *view)
{
    const char *line = view->page == PAGE_MAP ? "Tab query  [ ] head  c mask  s scale  t T temperature  m numbers  n p step"
                                              : "arrows move  + - change  Tab query  c mask  s scale  t T temp  m map  n p step";
    mvaddnstr(LINES - 1, 0, view->message ? view->message : line, COLS - 1);
}

/* ---- the page of numbers -------------------------------------------------------- */

static int least(int a, int b) { return a < b ? a : b; }

static struct layout lay_out(const struct explore *explore)
{
    const struct cursor *cursor = &explore->cursor;
    struct layout l = {.rows = (LINES - FIXED_LINES) / 2};
    l.k_numbers = least(explore->dim, (COLS - LABEL - COLUMNS_OF_RELATION - LEAST_BAR) / NUMBER);
    l.v_numbers = least(explore->v_dim, (MAP_X - 2 - LABEL) / NUMBER);
    l.first_rank = first_of(explore_rank(explore, cursor->key), explore->keys, l.rows);
    l.first_query = first_of(cursor->query, explore->queries, l.rows);
    l.k_first = first_of(cursor->part == PART_V ? 0 : cursor->d, explore->dim, l.k_numbers);
    l.v_first = first_of(cursor->part == PART_V ? cursor->d : 0, explore->v_dim, l.v_numbers);
    return l;
}

static int relation_x(const struct layout *l) { return LABEL + l->k_numbers * NUMBER; }

static void draw_dimensions(int y, int32_t first, int count, int32_t of)
{
    for (int n = 0; n < count; n++) mvprintw(y, LABEL + n * NUMBER, "%*s[%d]", first + n < 10 ? 3 : first + n < 100 ? 2 : 1, "", (int)first + n);
    if (first > 0) mvaddch(y, LABEL, '<');
    if (first + count < of) addch('>');
}

static void draw_row(const struct explore *explore, int y, enum part part, int32_t token, int32_t first, int count)
{
    const float *row = explore_row(explore, part, token);
    const struct cursor *cursor = &explore->cursor;
    const bool here = part == cursor->part && token == (part == PART_Q ? cursor->query : cursor->key);
    for (int n = 0; n < count; n++) {
        if (here && first + n == cursor->d) attron(A_REVERSE);
        put_number(y, LABEL + n * NUMBER, NUMBER, 2, (double)row[first + n]);
        attroff(A_REVERSE);
    }
}

static void draw_relation(const struct explore *explore, const struct layout *l, int y, int32_t key)
{
    const struct relation r = explore_relation(explore, explore->cursor.query, key);
    const int x = relation_x(l), room = COLS - x - COLUMNS_OF_RELATION - 1;
    put_number(y, x, 8, 3, r.dot);
    put_number(y, x + 8, 7, 3, r.cosine);
    if (isnan(r.angle)) mvaddstr(y, x + 15, "     -");
    else put_number(y, x + 15, 6, 1, r.angle);
    if (r.hidden) mvaddstr(y, x + 21, "  hidden");
    else put_number(y, x + 21, 8, 3, (double)r.score);
    put_number(y, x + 29, 7, 4, (double)r.weight);
    const int bar = r.weight > 0 ? (int)lrintf(r.weight * (float)room) : 0;
    mvhline(y, x + COLUMNS_OF_RELATION + 1, '#', bar < room ? bar : room);
}

static void mark(bool chosen, bool on)
{
    if (chosen && on) attron(A_BOLD | A_UNDERLINE);
    if (chosen && !on) attroff(A_BOLD | A_UNDERLINE);
}

static void draw_query_and_keys(const struct explore *explore, const struct layout *l, int y)
{
    const struct cursor *cursor = &explore->cursor;
    char text[16];
    mvaddstr(y, 0, "query");
    draw_dimensions(y, l->k_first, l->k_numbers, explore->dim);
    mvaddstr(y, relation_x(l), "     q.k    cos angle   score weight");
    put_label(y + 1, 0, LABEL - 1, explore_label(explore->q_labels, cursor->query, text));
    draw_row(explore, y + 1, PART_Q, cursor->query, l->k_first, l->k_numbers);
    mvaddstr(y + 1, relation_x(l), "   with each key below");
    for (int n = 0; n < l->rows && l->first_rank + n < explore->keys; n++) {
        const int32_t key = explore->order[l->first_rank + n];
        mark(key == cursor->key, true);
        put_label(y + 2 + n, 0, LABEL - 1, explore_label(explore->k_labels, key, text));
        mark(key == cursor->key, false);
        draw_row(explore, y + 2 + n, PART_K, key, l->k_first, l->k_numbers);
        draw_relation(explore, l, y + 2 + n, key);
    }
}

static void draw_values(const struct explore *explore, const struct layout *l, int y)
{
    char text[16];
    mvaddstr(y, 0, "value");
    draw_dimensions(y, l->v_first, l->v_numbers, explore->v_dim);
    for (int n = 0; n < l->rows && l->first_rank + n < explore->keys; n++) {
        const int32_t key = explore->order[l->first_rank + n];
        put_label(y + 1 + n, 0, LABEL - 1, explore_label(explore->k_labels, key, text));
        draw_row(explore, y + 1 + n, PART_V, key, l->v_first, l->v_numbers);
    }
    const float *o = explore->o + (int64_t)explore->cursor.query * explore->v_dim;
    const int rows = least(l->rows, explore->keys), end = y + 1 + rows;
    mvaddstr(end, 0, "output");
    for (int n = 0; n < l->v_numbers; n++) put_number(end, LABEL + n * NUMBER, NUMBER, 2, (double)o[l->v_first + n]);
    mvaddnstr(end, MAP_X, "output = sum of weight x value", COLS - MAP_X);
}

/* ---- heat maps -------------------------------------------------------------------- */

struct map_place {
    int x, y, label, cells, rows; /* y: of the first row of cells */
};

static void draw_map(const struct explore *explore, const struct scene *view, struct map_place at, int32_t first_query, int head_lines)
{
    const struct cursor *cursor = &explore->cursor;
    const int wide = 2 * explore->keys <= at.cells ? 2 : 1, shown = least(explore->keys, at.cells / wide);
    const int32_t first = first_of(cursor->key, explore->keys, shown);
    char text[16];
    for (int n = 0; n < shown; n++) {
        const char *label = explore_label(explore->k_labels, first + n, text);
        mark(first + n == cursor->key, true);
        for (int line = 0; line < head_lines; line++) put_letter(at.y - head_lines + line, at.x + at.label + n * wide, label, line);
        mark(first + n == cursor->key, false);
    }
    for (int n = 0; n < at.rows && first_query + n < explore->queries; n++) {
        const int32_t query = first_query + n;
        mark(query == cursor->query, true);
        put_label(at.y + n, at.x, at.label - 1, explore_label(explore->q_labels, query, text));
        mark(query == cursor->query, false);
        for (int c = 0; c < shown; c++)
            put_cell(at.y + n, at.x + at.label + c * wide, wide, explore->weights[(int64_t)query * explore->keys + first + c], view);
    }
}

static void draw_page_map(const struct explore *explore, const struct scene *view)
{
    enum { HEAD = 6, LEFT = 10, RIGHT = 18 };
    const struct map_place at = {.x = 0, .y = 2 + HEAD, .label = LEFT, .cells = COLS - LEFT - RIGHT, .rows = LINES - HEAD - 3};
    const int32_t first = first_of(explore->cursor.query, explore->queries, at.rows);
    char text[16];
    draw_settings(explore, 1);
    draw_map(explore, view, at, first, HEAD);
    mvaddstr(at.y - 1, COLS - RIGHT + 2, "looks most at");
    for (int n = 0; n < at.rows && first + n < explore->queries; n++) {
        const int32_t best = explore_strongest(explore, first + n);
        if (best < 0) continue;
        put_label(at.y + n, COLS - RIGHT + 2, 9, explore_label(explore->k_labels, best, text));
        put_number(at.y + n, COLS - 6, 5, 2, (double)explore->weights[(int64_t)(first + n) * explore->keys + best]);
    }
    move(at.y + explore->cursor.query - first, 0);
}

static void draw_page_numbers(const struct explore *explore, const struct scene *view)
{
    const struct layout l = lay_out(explore);
    const struct cursor *cursor = &explore->cursor;
    const int top = TEXT_LINES + 2, values = top + 2 + least(l.rows, explore->keys);
    draw_settings(explore, TEXT_LINES + 1);
    draw_query_and_keys(explore, &l, top);
    draw_values(explore, &l, values);
    mvaddstr(values, MAP_X, "key");
    draw_map(explore, view, (struct map_place){.x = MAP_X, .y = values + 1, .label = MAP_LABEL, .cells = COLS - MAP_X - MAP_LABEL, .rows = least(l.rows, explore->keys)},
             first_of(cursor->query, explore->queries, least(l.rows, explore->keys)), 1);
    /* The terminal's own cursor stands at the number, for eyes and for screen readers. */
    const int rank = (int)(explore_rank(explore, cursor->key) - l.first_rank);
    const int y = cursor->part == PART_Q ? top + 1 : cursor->part == PART_K ? top + 2 + rank : values + 1 + rank;
    move(y, LABEL + (int)(cursor->d - (cursor->part == PART_V ? l.v_first : l.k_first)) * NUMBER + NUMBER - 1);
}

static void draw_page_keys(void)
{
    static const char *const lines[] = {
        "up down left right   move to another number of q, of a key, of a value",
        "+ -                  change it by 0.1        PgUp PgDn   by 1",
        "0 !                  make it zero, negate it",
        "Tab, Shift-Tab       next, last query",
        "c                    causal mask: query i sees keys 0 to i",
        "s                    scale by 1 / sqrt(d), or not at all",
        "t T                  temperature down (sharper), up (flatter)",
        "[ ]                  last, next head of a capture",
        "o                    keys in order of their weight, or of their number",
        "m                    the map alone, and back",
        "n p                  next, last step of the lesson",
        "r                    this step from its beginning",
        "q, Ctrl-C            leave",
        "",
        "q.k is the dot product, cos the cosine of the angle between q and k,", /* a line has 77 columns on the smallest screen */
        "score what the softmax gets (q.k times the scale), weight what it gives;",
        "output = sum of weight x value.",
    };
    for (size_t n = 0; n < sizeof lines / sizeof *lines; n++) mvaddnstr((int)n + 2, 2, lines[n], COLS - 3);
    move(LINES - 1, 0);
}

void view_draw(const struct explore *explore, const struct scene *view)
{
    erase();
    if (LINES < VIEW_LINES || COLS < VIEW_COLUMNS) {
        mvprintw(0, 0, "heed explore: %d x %d here,", COLS, LINES);
        mvprintw(1, 0, "wanted %d x %d (q quits)", VIEW_COLUMNS, VIEW_LINES);
        refresh();
        return;
    }
    draw_head(view);
    draw_foot(view);
    if (view->page == PAGE_MAP) draw_page_map(explore, view);
    else if (view->page == PAGE_KEYS) draw_page_keys();
    else draw_page_numbers(explore, view);
    refresh();
}
