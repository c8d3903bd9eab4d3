/* SPDX-License-Identifier: MIT
 * quota.c - how many CPUs the control groups of this process grant: a container with a quota of two sees all cores of its host, and more threads
 * than two would spend most of each period stopped, some of them in the midst of what others wait for. No thread is made here.
 *
 * Version 2: cpu.max, "quota period" or "max period" in microseconds; version 1: cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us. Every group up
 * to the root counts. They are looked for where all distributions mount them, under /sys/fs/cgroup.
 */
#include "cpu.h"
#include "../mutant.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096 + 256 };

/* The first line of folder/name, without its end; false where there is none. */
static bool read_line(const char *folder, const char *name, char *line, size_t capacity)
{
    char path[PATH_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) return false;
    FILE *file = fopen(path, "re");
    if (!file) return false;
    const bool read = fgets(line, (int)capacity, file) != NULL;
    fclose(file);
    if (read) line[strcspn(line, "\n")] = '\0';
    return read;
}

/* quota / period rounded down, one at least; no limit where the numbers are none or make no sense. */
static int32_t whole_cpus(const char *quota, const char *period)
{
    char *end;
    const long long granted = strtoll(quota, &end, 10);
    if (end == quota || granted <= 0) return INT32_MAX; /* "max", -1 */
    const long long span = strtoll(period, &end, 10);
    if (end == period || span <= 0) return INT32_MAX;
    const long long cpus = MUTANT(cpu_quota_rounds_up) ? (granted + span - 1) / span : granted / span;
    return cpus < 1 ? 1 : cpus > INT32_MAX ? INT32_MAX : (int32_t)cpus;
}

static int32_t group_cpus(const char *folder, bool version_2)
{
    char quota[64], period[64];
    if (version_2) {
        if (!read_line(folder, "cpu.max", quota, sizeof quota)) return INT32_MAX;
        const char *space = strchr(quota, ' ');
        return whole_cpus(quota, space ? space + 1 : "100000");
    }
    if (!read_line(folder, "cpu.cfs_quota_us", quota, sizeof quota) || !read_line(folder, "cpu.cfs_period_us", period, sizeof period))
        return INT32_MAX;
    return whole_cpus(quota, period);
}

/* The least of mount/path and every group above it. A path that is not there (the host's, seen from inside a container) leads to the mount itself. */
static int32_t least_above(const char *mount, const char *path, bool version_2)
{
    char folder[PATH_BYTES];
    int32_t least = INT32_MAX;
    if (strstr(path, "..")) path = ""; /* outside of what is mounted here */
    if ((size_t)snprintf(folder, sizeof folder, "%s%s", mount, path) >= sizeof folder) return least;
    for (;;) {
        const int32_t cpus = group_cpus(folder, version_2);
        if (cpus < least) least = cpus;
        if (strlen(folder) <= strlen(mount) || MUTANT(cpu_quota_own_group)) return least;
        *strrchr(folder, '/') = '\0';
    }
}

/* "cpu" in "cpu,cpuacct". */
static bool lists_cpu(const char *controllers)
{
    for (const char *at = controllers; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, "cpu", 3) && (at[3] == ',' || at[3] == '\0')) return true;
    return false;
}

/* One line "number:controllers:path" of /proc/self/cgroup. */
static int32_t line_cpus(const char *root, char *line)
{
    static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"};
    char mount[PATH_BYTES];
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
    int32_t least = INT32_MAX;
    if (!path) return least;
    *controllers++ = *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    const bool version_2 = !strcmp(line, "0") && !*controllers;
    if (!version_2 && (!lists_cpu(controllers) || MUTANT(cpu_quota_version_1))) return least;
    for (int n = version_2 ? 0 : 2; n < (version_2 ? 2 : 4); n++) {
        if ((size_t)snprintf(mount, sizeof mount, "%s%s", root, mounts[n]) >= sizeof mount) continue;
        const int32_t cpus = least_above(mount, path, version_2);
        if (cpus < least) least = cpus;
    }
    return least;
}

int32_t cpu_quota(const char *root)
{
    char path[PATH_BYTES], line[PATH_BYTES];
    int32_t least = INT32_MAX;
    if ((size_t)snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= sizeof path) return least;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        const int32_t cpus = line_cpus(root, line);
        if (cpus < least) least = cpus;
    }
    if (file) fclose(file);
    return least;
}

int32_t cpu_workers(const char *root)
{
    const int32_t cores = cpu_physical_cores(), quota = cpu_quota(root);
    return quota < cores ? quota : cores;
}
