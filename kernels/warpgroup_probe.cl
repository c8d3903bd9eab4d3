/* SPDX-License-Identifier: MIT
 * warpgroup_probe.cl - do the warpgroup products of matrix_warpgroup.cl do what their words say? One warpgroup, small integers, exact equality (src/opencl/unit.c).
 *
 *   in    2048 numbers x of 16 bits: k [16][64] is x[0 ...], v [8][64] x[1024 ...], tiny [8][64] x[1536 ...]
 *   out   s [64][16] = q k^T with q[i][d] = x[(97 i + 31 d) % 1536];  t [64][16] = q tiny^T, tiny[j] again from j = 8 on;  o [64][64] = s v, v[j] = -v[j - 8] from 8 on
 */
#define QUERIES_AT 0
#define KEYS_AT (64 * 128)
#define TINY_AT (KEYS_AT + 16 * 128)
#define VALUES_AT (TINY_AT + 16 * 128)

kernel __attribute__((reqd_work_group_size(LOCAL_X, 1, 1))) void warpgroup_probe(global const ushort *in, global float *out)
{
    local uint4 memory[(VALUES_AT + 16 * 128) / 16] __attribute__((aligned(1024)));
    MU_SCRATCH
    const mu_address base = mu_address_of(memory);
    const int lane = THREAD & 31;
    for (int n = THREAD; n < (64 + 3 * 16) * 8; n += LOCAL_X) {
        const int row = n / 8, chunk = n % 8;
        const int r = row < 64 ? row : (row - 64) % 16;
        uint pair[4];
        for (int e = 0; e < 4; e++) {
            uint two = 0;
            for (int side = 0; side < 2; side++) {
                const int d = chunk * 8 + 2 * e + side;
                uint x = row < 64 ? in[(r * 97 + d * 31) % 1536] : row < 80 ? in[r * 64 + d] : row < 96 ? in[1536 + r % 8 * 64 + d] : in[1024 + r % 8 * 64 + d];
                if (row >= 96 && r >= 8) x ^= 0x8000;
                two |= x << 16 * side;
            }
            pair[e] = two;
        }
        mu_store16(base + row * 128 + ((chunk ^ r) & 7) * 16, (uint4)(pair[0], pair[1], pair[2], pair[3]));
    }
    wg_visible();
    FENCE;
    float s[8], t[8], o[32];
    uint p[4];
    const wg_operand q = wg_tile(base + QUERIES_AT, 16), k = wg_tile(base + KEYS_AT, 16), tiny = wg_tile(base + TINY_AT, 16), v = wg_tile(base + VALUES_AT, 16 * 128);
    wg_fence();
    wg_scores_first(s, q, k);
    MU_UNROLL for (int c = 1; c < 4; c++) wg_scores(s, wg_step(q, c * 32), wg_step(k, c * 32));
    wg_commit();
    wg_scores_first(t, q, tiny);
    MU_UNROLL for (int c = 1; c < 4; c++) wg_scores(t, wg_step(q, c * 32), wg_step(tiny, c * 32));
    wg_commit();
    wg_wait(0);
    wg_arrived(s, 8);
    wg_arrived(t, 8);
    MU_UNROLL for (int n = 0; n < 4; n++) p[n] = mu_pack(s[2 * n], s[2 * n + 1]);
    MU_UNROLL for (int n = 0; n < 32; n++) o[n] = 0;
    wg_fence();
    wg_values(o, p[0], p[1], p[2], p[3], v);
    wg_commit();
    wg_wait(0);
    wg_arrived(o, 32);
    const int row = (THREAD >> 5) * 16 + (lane >> 2);
    MU_UNROLL for (int n = 0; n < 32; n++)
    {
        const int i = row + (n >> 1 & 1) * 8, j = n / 4 * 8 + (lane & 3) * 2 + (n & 1);
        if (n < 8) out[i * 16 + j] = s[n];
        if (n < 8) out[64 * 16 + i * 16 + j] = t[n];
        out[2 * 64 * 16 + i * 64 + j] = o[n];
    }
}
