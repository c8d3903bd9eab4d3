/* SPDX-License-Identifier: MIT
 * peers.c - the list of peers. Libraries are looked for when the bench runs, not when it is built: two BLAS libraries in one process must
 * not see each other's names, and the command must not need any of them.
 */
#include "peers.h"
#include <time.h>

struct peers_place peers_place;
const char peer_cannot[] = "no form of this problem";

void peers_open(const struct peer *list[MOST_PEERS + 1], int threads)
{
    int count = 0;
    list[count++] = &peer_plain_loops;
    list[count++] = &peer_openblas;
    list[count++] = &peer_blis;
    list[count++] = &peer_onednn;
    list[count++] = &peer_clblast;
    python_open(list, &count, threads);
    list[count] = NULL;
}

void peers_close(void)
{
    python_close();
}

double peers_cpu_seconds(void)
{
    struct timespec used;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used)) return python_cpu_seconds();
    return (double)used.tv_sec + 1e-9 * (double)used.tv_nsec + python_cpu_seconds();
}
