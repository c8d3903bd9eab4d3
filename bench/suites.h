/* SPDX-License-Identifier: MIT
 * suites.h - lists of problem strings with names.
 */
#ifndef HEED_BENCH_SUITES_H
#define HEED_BENCH_SUITES_H

struct suite {
    const char *name;
    const char *const *problems; /* ended by NULL */
};

extern const struct suite suites[]; /* ended by one without a name */

#endif
