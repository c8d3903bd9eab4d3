/* SPDX-License-Identifier: MIT
 * explore_terminal.c - takes the terminal and gives it back: at the end, and at every signal that ends a program. The handler uses only what is
 * allowed in one: write() and tcsetattr() of what was prepared before.
 */
#include "explore_view.h"
#include <curses.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <term.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;
static char restore[256]; /* leave the other screen, plain letters, cursor visible, plain keys */
static size_t restore_length;
static SCREEN *screen;

/* A terminfo string without its padding marks ($<5>): nobody waits here. */
static void prepare(const char *text)
{
    if (!text || text == (const char *)-1) return;
    while (*text && restore_length < sizeof restore) {
        if (text[0] == '$' && text[1] == '<' && strchr(text, '>')) text = strchr(text, '>') + 1;
        else restore[restore_length++] = *text++;
    }
}

/* Below what was drawn, then what terminfo has for the rest; without another screen to leave, a line of its own for what comes next. */
static void prepare_all(void)
{
    static const char *const names[] = {"sgr0", "rmkx", "cnorm", "rmcup"};
    const char *move_to = tigetstr("cup"), *leave = tigetstr("rmcup");
    restore_length = 0;
    if (move_to && move_to != (const char *)-1) prepare(tparm((char *)move_to, (long)LINES - 1, 0L, 0L, 0L, 0L, 0L, 0L, 0L, 0L));
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) prepare(tigetstr(names[n]));
    if (!leave || leave == (const char *)-1) prepare("\r\n");
}

/* The terminal belongs to somebody else while we are stopped or in the background. The default action follows: the caller sees the signal. */
static void give_back_and_die(int number)
{
    signal(number, SIG_DFL);
    if (tcgetpgrp(STDIN_FILENO) == getpgrp()) {
        if (write(STDOUT_FILENO, restore, restore_length) < 0) { /* nothing left to do */ }
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
    }
    raise(number);
}

/* Every signal whose default ends the program, unless the caller had it ignored (nohup). */
static void catch_signals(void)
{
    static const int spared[] = {SIGKILL, SIGSTOP, SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    for (int n = 1; n < 32; n++) {
        bool spare = false;
        for (size_t s = 0; s < sizeof spared / sizeof *spared; s++) spare = spare || spared[s] == n;
        struct sigaction old, action = {.sa_handler = give_back_and_die};
        sigemptyset(&action.sa_mask);
        if (spare || sigaction(n, NULL, &old) || old.sa_handler == SIG_IGN) continue;
        sigaction(n, &action, NULL);
    }
}

/* Weights as backgrounds: pair 1 + step, darkest first. Letters in the middle of a cell stay readable. */
static void make_colors(enum color color)
{
    static const short palette[16] = {16, 233, 17, 53, 54, 90, 126, 162, 161, 197, 203, 208, 214, 220, 227, 230};
    static const short eight[5] = {COLOR_BLACK, COLOR_BLUE, COLOR_MAGENTA, COLOR_YELLOW, COLOR_WHITE};
    const bool many = color >= COLOR_256 && COLORS >= 256;
    for (short n = 0; n < (many ? 16 : 5); n++)
        init_pair((short)(n + 1), n > (many ? 10 : 2) ? COLOR_BLACK : COLOR_WHITE, many ? palette[n] : eight[n]);
}

bool terminal_open(enum color color)
{
    setlocale(LC_CTYPE, ""); /* letters only: numbers keep their point */
    tcgetattr(STDIN_FILENO, &before);
    const char *term = getenv("TERM");
    screen = newterm(NULL, stdout, stdin);
    if (!screen) {
        fprintf(stderr, "heed explore: no such terminal: TERM=%s; try TERM=vt100, or draw a picture: heed show\n", term ? term : "");
        return false;
    }
    const char *move_to = tigetstr("cup");
    if (!move_to || move_to == (const char *)-1) {
        terminal_close();
        fprintf(stderr, "heed explore: TERM=%s cannot move its cursor; try TERM=vt100, or draw a picture: heed show\n", term ? term : "");
        return false;
    }
    prepare_all();
    catch_signals();
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    set_escdelay(25);
    if (color != COLOR_NEVER && has_colors()) {
        start_color();
        use_default_colors();
        make_colors(color);
    }
    return true;
}

void terminal_close(void)
{
    endwin();
    delscreen(screen);
    screen = NULL;
}

/* A terminal that went away gives errors for ever. */
int terminal_key(void)
{
    for (int n = 0; n < 100; n++) {
        const int key = getch();
        if (key == KEY_RESIZE) prepare_all();
        if (key != ERR) return key;
    }
    return -1;
}
