/* SPDX-License-Identifier: MIT
 * file.c - see file.h.
 */
#include "file.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool file_open(const char *path, struct file *file, struct message *message)
{
    *file = (struct file){0};
    const int handle = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (handle < 0) return refuse(message, 2, "%s: %s", path, strerror(errno));
    if (fstat(handle, &about) != 0 || !S_ISREG(about.st_mode)) {
        close(handle);
        return refuse(message, 2, "%s: not a regular file", path);
    }
    void *data = about.st_size > 0 ? mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, handle, 0) : NULL;
    const int error = errno;
    close(handle); /* the mapping stays */
    if (data == MAP_FAILED) return refuse(message, 4, "%s: cannot be mapped: %s", path, strerror(error));
    *file = (struct file){.data = data, .bytes = (size_t)about.st_size};
    return true;
}

void file_close(struct file *file)
{
    if (file->data) munmap((void *)file->data, file->bytes);
    *file = (struct file){0};
}
