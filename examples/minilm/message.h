/* SPDX-License-Identifier: MIT
 * message.h - why something was refused, in one line for a person. Functions here that can fail return false or NULL after writing it.
 * Nothing is printed but by main.c.
 */
#ifndef MINILM_MESSAGE_H
#define MINILM_MESSAGE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

struct message {
    char text[512];
    int exit_code; /* 2 bad input, 3 no such device, 4 the machine failed */
};

__attribute__((format(printf, 3, 4))) static inline bool refuse(struct message *message, int exit_code, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(message->text, sizeof message->text, format, list);
    va_end(list);
    message->exit_code = exit_code;
    return false;
}

static inline bool out_of_memory(struct message *message)
{
    return refuse(message, 4, "out of memory");
}

#endif
