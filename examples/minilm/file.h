/* SPDX-License-Identifier: MIT
 * file.h - a whole file as bytes in memory, read only, by mmap: pages come when they are touched, and all runs of the program share them.
 * The file must not be cut while it is open (a touched page that is gone ends the program with SIGBUS).
 */
#ifndef MINILM_FILE_H
#define MINILM_FILE_H

#include "message.h"
#include <stddef.h>

struct file {
    const char *data; /* page-aligned; NULL for an empty file */
    size_t bytes;
};

bool file_open(const char *path, struct file *file, struct message *message);
void file_close(struct file *file); /* twice is fine */

#endif
