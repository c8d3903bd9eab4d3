/* SPDX-License-Identifier: MIT
 * machine.c - what a browser's machine lacks: how many processors there are. One.
 */
#include <sched.h>
#include <stddef.h>

int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set);
int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *set)
{
    (void)process, (void)bytes, (void)set;
    return -1;
}

int __sched_cpucount(size_t bytes, const cpu_set_t *set);
int __sched_cpucount(size_t bytes, const cpu_set_t *set)
{
    (void)bytes, (void)set;
    return 1;
}
