/* SPDX-License-Identifier: MIT
 * peers.c - the peers built in. The plain loops always; others, each behind its own switch, stand before the NULL.
 */
#include "peers.h"

const struct peer *const peers[] = {
    &peer_plain_loops,
#ifdef HEED_PEER_OPENBLAS
    &peer_openblas,
#endif
    NULL,
};
