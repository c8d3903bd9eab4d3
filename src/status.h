/* SPDX-License-Identifier: MIT
 * status.h - the thread's last message, memory and log lines: what every floor may use.
 */
#ifndef HEED_STATUS_H
#define HEED_STATUS_H

#include "internal.h"

/* Store one line (field, value, rule) as this thread's message and return the status. Formatting is independent of the locale for
 * %d %lld %llu %s %zu; numbers with a fraction are formatted by dtype.h's text_of_double(). */
heed_status fail(heed_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Zero-filled memory from the caller's allocator, 64-byte aligned; NULL on failure (the caller then returns out_of_memory()). */
void *memory_new(const struct services *services, size_t count, size_t size);
void memory_delete(const struct services *services, void *block); /* NULL is fine */
char *memory_string(const struct services *services, const char *text);
heed_status out_of_memory(size_t bytes);

/* One line to the caller's log, if level <= log_level. */
void log_line(const struct services *services, int32_t level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Append to a fixed text, snprintf's way: returns the length it would have had. Used by explain and reasons. */
size_t text_append(char *text, size_t capacity, size_t length, const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
