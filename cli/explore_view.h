/* SPDX-License-Identifier: MIT
 * explore_view.h - the explorer's screen: draws the model, never changes it. And the terminal below it, which comes back as it was
 * whatever ends the program.
 */
#ifndef HEED_CLI_EXPLORE_VIEW_H
#define HEED_CLI_EXPLORE_VIEW_H

#include "explore_lessons.h"
#include "heatmap.h"

enum { VIEW_COLUMNS = 80, VIEW_LINES = 24 };
enum view_page { PAGE_NUMBERS, PAGE_MAP, PAGE_KEYS };

struct scene {
    int step;              /* of the lesson */
    enum view_page page;
    bool own_files;        /* the capture is the caller's */
    enum color color;
    const char *message;   /* below everything, or NULL */
};

/* Takes the terminal. False after a line on standard error: TERM is unknown. */
bool terminal_open(enum color color);
void terminal_close(void);
/* The next key as ncurses names it, KEY_RESIZE too; -1: the terminal is gone. */
int terminal_key(void);

void view_draw(const struct explore *explore, const struct scene *view);

#endif
