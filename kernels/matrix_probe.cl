/* SPDX-License-Identifier: MIT
 * matrix_probe.cl - is the matrix unit there, and do its fragments lie where our words say? One warp uses every word once, with the addressing of the
 * attention kernels, on small integers, so that any wrong layout changes a whole number. The host (src/opencl/unit.c) wants exact equality.
 *
 *   in    k, q, v, tiny [16][32] in 16 bits, with K_TYPE f32 in 32; of k only dimensions 0 ... 19 are copied, the others must be zeros
 *   out   s [16 keys][16 queries] = k q^T;  o [32][16] = v^T s, by way of weights;  t [16][16] = tiny q^T;  [16] sums and [16] largest of each query's s;
 *         mu_exp of 0, -infinity and what underflows
 */
#define OUT_S 0
#define OUT_O 256
#define OUT_T 768
#define OUT_SUM 1024
#define OUT_TOP 1040
#define OUT_EXP 1056
#define CHUNKS 4
#define TILE_BYTES 1024

#if LAYOUT == 2
#define MU_ATTRIBUTES
#endif

#if K_TYPE == TYPE_F32
/* The 16x8x8 unit of prefill_tf32.cl: lane l has rows l/4 and l/4 + 8 of s, columns 2(l%4) and the next. */
kernel __attribute__((reqd_work_group_size(LOCAL_X, 1, 1))) void matrix_probe(global const uint *in, global float *out)
{
    MU_SCRATCH
    global const uint *k = in, *q = in + 512, *v = in + 1024, *tiny = in + 1536;
    const int lane = THREAD, row = lane >> 2, column = lane & 3;
    float s[2][4], t[2][4], o[4][4];
    MU_UNROLL for (int n = 0; n < 16; n++)
    {
        o[n / 4][n % 4] = 0;
        if (n < 8) s[n / 4][n % 4] = t[n / 4][n % 4] = 0;
    }
    MU_UNROLL for (int c = 0; c < 4; c++)
    {
        uint a[4];
        MU_UNROLL for (int n = 0; n < 4; n++) a[n] = q[(row + 8 * (n & 1)) * 32 + c * 8 + column + 4 * (n >> 1)];
        MU_UNROLL for (int n = 0; n < 2; n++)
        {
            const int at = (n * 8 + row) * 32 + c * 8 + column;
            mu_mma_tf32(s[n], a[0], a[1], a[2], a[3], c * 8 + column < 20 ? k[at] : 0, c * 8 + column + 4 < 20 ? k[at + 4] : 0);
            mu_mma_tf32(t[n], a[0], a[1], a[2], a[3], tiny[at], tiny[at + 4]);
        }
    }
    MU_UNROLL for (int c = 0; c < 2; c++)
    {
        MU_UNROLL for (int n = 0; n < 4; n++)
        {
            const int at = (c * 8 + 2 * column) * 32 + n * 8 + row;
            mu_mma_tf32(o[n], as_uint(s[c][0]), as_uint(s[c][2]), as_uint(s[c][1]), as_uint(s[c][3]), v[at], v[at + 32]);
        }
    }
#else
kernel __attribute__((reqd_work_group_size(LOCAL_X, 1, 1))) MU_ATTRIBUTES void matrix_probe(global const uchar *in, global float *out)
{
    local uint4 memory[4 * TILE_BYTES / 16] ALIGNED;
    MU_SCRATCH
    const mu_address k = mu_address_of(memory), q = k + TILE_BYTES, v = q + TILE_BYTES, tiny = v + TILE_BYTES;
    const int lane = THREAD;
    _Pragma("unroll 1") for (int n = THREAD; n < 16 * CHUNKS; n += LANES) {
        const int r = n / CHUNKS, c = n % CHUNKS;
        copy_chunk(place(k, r, c, CHUNKS), in + r * 64, c, 20, true);
        copy_chunk(place(q, r, c, CHUNKS), in + TILE_BYTES + r * 64, c, 32, true);
        copy_chunk(place(tiny, r, c, CHUNKS), in + 3 * TILE_BYTES + r * 64, c, 32, true);
#if LAYOUT == 2 || !MU_PAIRS
        copy_chunk(place(v, r, c, CHUNKS), in + 2 * TILE_BYTES + r * 64, c, 32, true);
#else
        if (r % 2 == 0)
            store_pairs(v, r / 2, c, 32, chunk_of(in + 2 * TILE_BYTES + r * 64, c, 32, true), chunk_of(in + 2 * TILE_BYTES + (r + 1) * 64, c, 32, true));
#endif
    }
    mu_copy_commit();
    mu_copy_wait(0);
    FENCE;

#if LAYOUT == 2
    float s[2][4], t[2][4], o[4][4]; /* a row of s: a query */
    MU_UNROLL for (int n = 0; n < 16; n++)
    {
        o[n / 4][n % 4] = 0;
        if (n < 8) s[n / 4][n % 4] = t[n / 4][n % 4] = 0;
    }
    MU_UNROLL for (int c = 0; c < 2; c++)
    {
        uint a[4], x[4], y[4];
        mu_load4(a[0], a[1], a[2], a[3], place(q, lane & 15, c * 2 + (lane >> 4), CHUNKS));
        mu_load4(x[0], x[1], x[2], x[3], place(k, (lane & 7) + (lane >> 4) * 8, c * 2 + (lane >> 3 & 1), CHUNKS));
        mu_load4(y[0], y[1], y[2], y[3], place(tiny, (lane & 7) + (lane >> 4) * 8, c * 2 + (lane >> 3 & 1), CHUNKS));
        MU_UNROLL for (int n = 0; n < 2; n++)
        {
            mu_mma(s[n], a[0], a[1], a[2], a[3], n ? x[2] : x[0], n ? x[3] : x[1]);
            mu_mma(t[n], a[0], a[1], a[2], a[3], n ? y[2] : y[0], n ? y[3] : y[1]);
        }
    }
    uint p[4];
    MU_UNROLL for (int n = 0; n < 4; n++) p[n] = mu_pack(s[n >> 1][2 * (n & 1)], s[n >> 1][2 * (n & 1) + 1]);
    MU_UNROLL for (int n = 0; n < 2; n++)
    {
        uint y[4];
        mu_load4_transposed(y[0], y[1], y[2], y[3], place(v, lane & 15, n * 2 + (lane >> 4), CHUNKS));
        MU_UNROLL for (int x = 0; x < 2; x++) mu_mma(o[2 * n + x], p[0], p[1], p[2], p[3], x ? y[2] : y[0], x ? y[3] : y[1]);
    }
#endif
#endif
#if LAYOUT == 2
    MU_UNROLL for (int side = 0; side < 2; side++)
    {
        const int i = (lane >> 2) + 8 * side;
        float sum = 0, top = -INFINITY;
        MU_UNROLL for (int n = 0; n < 8; n++)
        {
            const int at = n / 2 * 8 + (lane & 3) * 2 + n % 2;
            out[OUT_O + at * 16 + i] = o[n / 2][2 * side + n % 2];
            if (n >= 4) continue;
            const float x = s[n / 2][2 * side + n % 2];
            out[OUT_S + at * 16 + i] = x;
            out[OUT_T + at * 16 + i] = t[n / 2][2 * side + n % 2];
            sum += x;
            top = fmax(top, x);
        }
        MU_UNROLL for (int x = 1; x <= 2; x++)
        {
            const float more = mu_xor(sum, x), beside = mu_xor(top, x);
            sum += more;
            top = fmax(top, beside);
        }
        if ((lane & 3) == 0) out[OUT_SUM + i] = sum, out[OUT_TOP + i] = top;
    }
#else
    _Pragma("unroll 1") for (int column = 0; column < 16; column += MU_COLUMNS) {
        float s[2 * MU_TILES][MU_ACC], sum = 0, top = -INFINITY; /* of k, then of tiny */
        const int i = column + lane % MU_COLUMNS;
        MU_UNROLL for (int n = 0; n < 2 * MU_TILES * MU_ACC; n++) s[n / MU_ACC][n % MU_ACC] = 0;
        MU_UNROLL for (int c = 0; c < 2; c++)
        {
            uint b[MU_B_WORDS];
            mu_load_b(b, q, column, c, CHUNKS, lane);
            MU_UNROLL for (int n = 0; n < 2 * MU_TILES; n++)
            {
                uint a[MU_A_WORDS];
                mu_load_a(a, n < MU_TILES ? k : tiny, n % MU_TILES * MU_ROWS, c, CHUNKS, lane);
                mu_mma(s[n], a, b);
            }
        }
        uint p[MU_B_WORDS];
        mu_weights(p, s[0], lane);
        MU_UNROLL for (int n = 0; n < 32 / MU_ROWS; n++)
        {
            float o[MU_ACC];
            uint a[MU_A_WORDS];
            MU_UNROLL for (int e = 0; e < MU_ACC; e++) o[e] = 0;
            mu_load_values(a, v, 0, n * MU_ROWS, 32, lane);
            mu_mma(o, a, p);
            MU_UNROLL for (int e = 0; e < MU_ACC; e++) out[OUT_O + (n * MU_ROWS + mu_row(lane, e)) * 16 + i] = o[e];
        }
        MU_UNROLL for (int n = 0; n < MU_TILES * MU_ACC; n++)
        {
            const int at = n / MU_ACC * MU_ROWS + mu_row(lane, n % MU_ACC);
            const float x = s[n / MU_ACC][n % MU_ACC];
            out[OUT_S + at * 16 + i] = x;
            out[OUT_T + at * 16 + i] = s[MU_TILES + n / MU_ACC][n % MU_ACC];
            sum += x;
            top = fmax(top, x);
        }
        MU_UNROLL for (int x = MU_COLUMNS; x < MU_LANES; x *= 2)
        {
            const float more = mu_xor(sum, x), beside = mu_xor(top, x);
            sum += more;
            top = fmax(top, beside);
        }
        if (lane < MU_COLUMNS) out[OUT_SUM + i] = sum, out[OUT_TOP + i] = top;
    }
#endif
    if (lane < 3) out[OUT_EXP + lane] = mu_exp((lane == 0 ? 0.0f : lane == 1 ? -INFINITY : -200.0f) * MU_EXP_FACTOR);
}
