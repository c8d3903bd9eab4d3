/* SPDX-License-Identifier: MIT
 * cache.c - checked files in the cache directory: compiled programs and verdicts of probes. A file is untrusted until every byte of it has
 * been held against its checksum; a damaged one counts as absent and nobody sees its payload. A checksum is no signature: the directory
 * (0700, ours alone) is the border of trust.
 *
 *     magic 8 | format 4 | library version 4 | key 16 | length 8 | checksum of the payload 16 | payload
 */
#include "cl.h"
#include "../mutant.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FORMAT = 1, PAYLOAD_LIMIT = 64 << 20, STALE_SECONDS = 3600 };

struct header {
    char magic[8];
    uint32_t format, version;
    uint64_t key[2];
    uint64_t length;
    uint64_t sum[2];
};
static const char magic[8] = {'H', 'E', 'E', 'D', 'C', 'L', '\r', '\n'};

/* Every folder on the way; the last one and new ones get 0700. */
static void make_folders(const char *path)
{
    char part[4096];
    const size_t length = strlen(path);
    if (length >= sizeof part) return;
    for (size_t i = 1; i <= length; i++)
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0700) != 0 && errno != EEXIST) return;
        }
}

/* The directory, if it is a real one, ours, and nobody else may write in it; -1 otherwise. */
static int open_folder(const struct services *services, bool make)
{
    struct stat about;
    if (!services->cache_dir) return -1;
    if (make) make_folders(services->cache_dir);
    const int folder = open(services->cache_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) return -1;
    if (fstat(folder, &about) == 0 && about.st_uid == geteuid() && (about.st_mode & (S_IWGRP | S_IWOTH)) == 0) return folder;
    log_line(services, 1, "cache directory %s is not used: it must belong to this user and be writable by nobody else",
             services->cache_dir);
    close(folder);
    return -1;
}

static void file_name(const uint64_t key[2], const char *suffix, char *name, size_t capacity)
{
    snprintf(name, capacity, "%016" PRIx64 "%016" PRIx64 ".%s", key[0], key[1], suffix);
}

static bool read_all(int file, void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = read(file, (char *)to + done, bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        done += (size_t)n;
    }
    return true;
}

static bool write_all(int file, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = write(file, (const char *)from + done, bytes - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        done += (size_t)n;
    }
    return true;
}

static void payload_sum(const void *payload, size_t length, const uint64_t key[2], uint64_t sum[2])
{
    const XXH128_hash_t hash = XXH3_128bits_withSeed(payload, length, key[0]);
    sum[0] = hash.low64;
    sum[1] = hash.high64;
}

static bool header_good(const struct header *header, const uint64_t key[2], const struct stat *about)
{
    return !memcmp(header->magic, magic, sizeof magic) && header->format == FORMAT && header->version == heed_version() &&
           header->key[0] == key[0] && header->key[1] == key[1] && header->length > 0 && header->length <= PAYLOAD_LIMIT &&
           (uint64_t)about->st_size == sizeof *header + header->length;
}

static void *load_checked(int file, const uint64_t key[2], size_t *length)
{
    struct stat about;
    struct header header;
    uint64_t sum[2];
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode) || about.st_uid != geteuid()) return NULL;
    if (!read_all(file, &header, sizeof header) || !header_good(&header, key, &about)) return NULL;
    void *payload = malloc(header.length);
    if (!payload) return NULL;
    if (read_all(file, payload, header.length)) {
        payload_sum(payload, header.length, key, sum);
        if ((sum[0] == header.sum[0] && sum[1] == header.sum[1]) || MUTANT(cl_cache_unchecked)) {
            *length = header.length;
            return payload;
        }
    }
    free(payload);
    return NULL;
}

void *cl_cache_load(const struct services *services, const uint64_t key[2], const char *suffix, size_t *length)
{
    char name[96];
    const int folder = open_folder(services, false);
    if (folder < 0) return NULL;
    file_name(key, suffix, name, sizeof name);
    void *payload = NULL;
    const int file = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0) {
        payload = load_checked(file, key, length);
        if (!payload) log_line(services, 2, "cache file %s is damaged or of another version: made again", name);
        close(file);
    }
    close(folder);
    return payload;
}

/* What a killed process left behind. */
static void sweep(int folder)
{
    const int copy = dup(folder);
    DIR *entries = copy >= 0 ? fdopendir(copy) : NULL;
    if (!entries) {
        if (copy >= 0) close(copy);
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(entries))) {
        const char *end = strstr(entry->d_name, ".part-");
        struct stat about;
        if (end && fstatat(folder, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0 && about.st_mtime + STALE_SECONDS < time(NULL))
            unlinkat(folder, entry->d_name, 0);
    }
    closedir(entries);
}

/* Under a name of its own first, then renamed: readers see a whole file or none. Failing to store is no error. */
void cl_cache_store(const struct services *services, const uint64_t key[2], const char *suffix, const void *payload, size_t length)
{
    static atomic_uint counter;
    char name[96], part[160];
    if (length == 0 || length > PAYLOAD_LIMIT) return;
    const int folder = open_folder(services, true);
    if (folder < 0) return;
    const unsigned number = atomic_fetch_add(&counter, 1);
    if (number == 0) sweep(folder);
    file_name(key, suffix, name, sizeof name);
    snprintf(part, sizeof part, "%s.part-%ld-%u", name, (long)getpid(), number);
    struct header header = {.format = FORMAT, .version = heed_version(), .key = {key[0], key[1]}, .length = length};
    memcpy(header.magic, magic, sizeof magic);
    payload_sum(payload, length, key, header.sum);
    const int file = openat(folder, part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file >= 0) {
        bool good = write_all(file, &header, sizeof header) && write_all(file, payload, length) && fsync(file) == 0;
        good = close(file) == 0 && good;
        if (MUTANT(cl_cache_left)) good = true;
        else if (!good || renameat(folder, part, folder, name) != 0) unlinkat(folder, part, 0);
    }
    close(folder);
}
