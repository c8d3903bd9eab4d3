/* SPDX-License-Identifier: MIT
 * machine.c - what a browser's machine lacks: one processor is there, and no rows of vectors (the page asks for scores, which the reference
 * gives in double anyway; vector rows would double the size of the page).
 */
#include "rows.h"
#include <sched.h>

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

const struct kernel_row cpu_rows_vector[1] = {{0}};
