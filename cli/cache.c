/* SPDX-License-Identifier: MIT
 * cache.c - `heed cache`: the files that the OpenCL wing keeps on disk. Only files that carry its name and its magic are listed or removed:
 * the directory may be the user's own choice and hold other things.
 */
#include "table.h"
#include "tool.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static const struct column columns[] = {
    {"kind", "kind", -8, 0}, {"bytes", "bytes", 9, 0}, {"written", "written", -16, 0}, {"file", "file", -10, 0}, {0}};

/* 32 hexadecimal digits, a point, a kind (and what a writer appends while it writes). */
static bool own_name(const char *name)
{
    return strspn(name, "0123456789abcdef") == 32 && name[32] == '.' && name[33];
}

static bool own_magic(const char *path)
{
    char magic[8] = "";
    FILE *file = fopen(path, "rb");
    const bool own = file && fread(magic, 1, sizeof magic, file) == sizeof magic && !memcmp(magic, "HEEDCL\r\n", sizeof magic);
    if (file) fclose(file);
    return own;
}

static void list_file(struct table *table, const char *name, const struct stat *about)
{
    char written[32] = "";
    struct tm when;
    if (localtime_r(&about->st_mtime, &when)) strftime(written, sizeof written, "%Y-%m-%d %H:%M", &when);
    table_text(table, "file", name);
    table_text(table, "kind", name + 33);
    table_count(table, "bytes", (long long)about->st_size);
    table_text(table, "written", written);
    table_row(table);
}

static int walk(const char *folder, bool clear, struct table *table, int *count)
{
    DIR *directory = opendir(folder);
    if (!directory) return EXIT_OK; /* nothing was ever kept */
    int code = EXIT_OK;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[4096];
        struct stat about;
        if (!own_name(entry->d_name) || snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path) continue;
        if (lstat(path, &about) || !S_ISREG(about.st_mode) || !own_magic(path)) continue;
        list_file(table, entry->d_name, &about);
        ++*count;
        if (clear && remove(path)) {
            fputs("heed cache: ", stderr);
            perror(path);
            code = EXIT_BROKEN;
        }
    }
    closedir(directory);
    return code;
}

int run_cache(const struct options *options)
{
    struct tool tool;
    struct table table;
    struct options cpu = *options;
    int count = 0;
    if (options->list && options->clear) {
        fputs("heed cache: --list or --clear, one of them\n", stderr);
        return EXIT_USAGE;
    }
    cpu.device = "cpu"; /* no driver needs to be loaded for this */
    int code = tool_open(&tool, &cpu, "cpu");
    if (code) return code;
    const char *folder = tool.context->services.cache_dir;
    if (!table_begin(&table, columns, options->json)) code = out_of_room();
    else if (folder) code = walk(folder, options->clear, &table, &count);
    if (!table_end(&table) && code == EXIT_OK) code = out_of_room();
    if (!options->json)
        printf("%d file%s %s %s\n", count, count == 1 ? "" : "s", options->clear ? "removed from" : "in",
               folder ? folder : "memory only: no cache directory");
    tool_close(&tool);
    return code;
}
