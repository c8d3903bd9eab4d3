/* SPDX-License-Identifier: MIT
 * mutant.c - which planted bug is switched on, in builds with HEED_MUTANTS; empty in every other build.
 * No release contains it, so the variable is read nowhere else.
 */
#include "mutant.h"

#ifdef HEED_MUTANTS
#include <stdlib.h>
#include <string.h>

const char *mutant_name(void)
{
    const char *name = getenv("HEED_MUTANT");
    return name && *name ? name : NULL;
}

int mutant_is(const char *name)
{
    const char *chosen = mutant_name();
    return chosen && strcmp(chosen, name) == 0;
}
#else
typedef int mutant_c_is_empty; /* C forbids an empty translation unit */
#endif
