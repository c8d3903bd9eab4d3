/* SPDX-License-Identifier: MIT
 * status.c - names of statuses, the thread's last message, memory, log lines.
 * Everything that every floor may use; it knows no problem, no plan, no device.
 */
#include "status.h"
#include "mutant.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 4096, LINE_BYTES = 1024, MEMORY_ALIGNMENT = 64 };

/* One per thread, so that a message belongs to the call that failed. Long enough for the head of a compiler's log. */
static _Thread_local char message[MESSAGE_BYTES];

uint32_t heed_version(void) { return HEED_VERSION_MAJOR * 10000 + HEED_VERSION_MINOR * 100 + HEED_VERSION_PATCH; }

const char *heed_status_string(heed_status status)
{
    static const char *const names[] = {
        [HEED_OK] = "ok",
        [HEED_INVALID_ARGUMENT] = "invalid argument",
        [HEED_OUT_OF_BOUNDS] = "out of bounds",
        [HEED_UNSUPPORTED] = "unsupported",
        [HEED_OUT_OF_MEMORY] = "out of memory",
        [HEED_WORKSPACE_TOO_SMALL] = "workspace too small",
        [HEED_DEVICE_NOT_FOUND] = "device not found",
        [HEED_BUILD_FAILED] = "build failed",
        [HEED_DEVICE_FAILED] = "device failed",
        [HEED_MISMATCH] = "mismatch",
        [HEED_FORKED] = "context made before fork",
        [HEED_INTERNAL] = "internal error",
    };
    if ((unsigned)status >= sizeof names / sizeof *names) return "unknown status";
    return names[status];
}

const char *heed_error_message(void) { return message; }

heed_status fail(heed_status status, const char *format, ...)
{
    char text[MESSAGE_BYTES]; /* the arguments may hold the old message itself */
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(text, sizeof text, format, arguments) < 0) text[0] = '\0';
    va_end(arguments);
    memcpy(message, text, strlen(text) + 1);
    return status;
}

void *memory_new(const struct services *services, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX) return NULL;
    if (bytes == 0) bytes = 1; /* an empty array is not a failure */
    void *block = services->allocator.alloc(services->allocator.user, bytes, MEMORY_ALIGNMENT);
    if (block) memset(block, 0, bytes);
    return block;
}

void memory_delete(const struct services *services, void *block)
{
    if (block) services->allocator.free(services->allocator.user, block);
}

char *memory_string(const struct services *services, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = memory_new(services, bytes, 1);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}

heed_status out_of_memory(size_t bytes)
{
    if (bytes == 0) return fail(HEED_OUT_OF_MEMORY, "an allocation failed");
    return fail(HEED_OUT_OF_MEMORY, "an allocation of %zu bytes failed", bytes);
}

void log_line(const struct services *services, int32_t level, const char *format, ...)
{
    if (!services->log || level > services->log_level) return;
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length >= 0) services->log(services->log_user, level, line);
}

size_t text_append(char *text, size_t capacity, size_t length, const char *format, ...)
{
    size_t room = length < capacity ? capacity - length : 0;
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(room ? text + length : NULL, room, format, arguments);
    va_end(arguments);
    return added < 0 ? length : length + (size_t)added;
}
