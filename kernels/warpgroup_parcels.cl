/* SPDX-License-Identifier: MIT
 * warpgroup_parcels.cl - tiles of keys and values that every work-item of a group copies in pieces of 16 bytes, between the exponentials of another tile. No kernel.
 */
/* A parcel to be copied piece by piece between other work: the next piece of each, and how many there are. */
struct parcel {
    mu_address k_to, v_to;
    global const uchar *k_from, *v_from;
    long k_stride, v_stride;
    bool has_k, has_v;
};

/* Do the same lanes copy the same pieces of every so many rows, at one step? */
#define EVEN(chunks) (LANES % (chunks) == 0 && LANES / (chunks) % 8 == 0 && TILE_KEYS % (LANES / (chunks)) == 0)
#define K_PIECES (TILE_KEYS * K_CHUNKS / LANES)
#define V_PIECES (TILE_KEYS * V_CHUNKS / LANES)
#define PIECE_BYTES(dim, chunks) ((dim) == (chunks) * 8 ? 16u : (uint)clamp((dim) - THREAD % (chunks) * 8, 0, 8) * 2)
#define PIECE_AT(dim, chunks) ((dim) == (chunks) * 8 || THREAD % (chunks) * 8 < (dim) ? THREAD % (chunks) * 16 : 0)

static inline void copy_k_piece(private struct parcel *parcel, int n)
{
    if (!parcel->has_k) return;
    mu_copy16(parcel->k_to + n * (LANES / K_CHUNKS * 128), parcel->k_from, PIECE_BYTES(HEAD_DIM, K_CHUNKS));
    parcel->k_from += parcel->k_stride;
}
static inline void copy_v_piece(private struct parcel *parcel, int n)
{
    if (!parcel->has_v) return;
    mu_copy16(parcel->v_to + n * (LANES / V_CHUNKS * 128), parcel->v_from, PIECE_BYTES(V_HEAD_DIM, V_CHUNKS));
    parcel->v_from += parcel->v_stride;
}

#define PARCEL_TAKEN private struct parcel *parcel,
#define PARCEL_GIVEN &parcel,
#define COPY_BESIDE(x)                                                                                                           \
    do {                                                                                                                         \
        if ((x) * K_PIECES % SCORES_HERE < K_PIECES) copy_k_piece(parcel, (x) * K_PIECES / SCORES_HERE);                         \
        if ((x) * V_PIECES % SCORES_HERE < V_PIECES) copy_v_piece(parcel, (x) * V_PIECES / SCORES_HERE);                         \
    } while (0)
