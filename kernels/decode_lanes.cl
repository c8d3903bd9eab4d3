/* SPDX-License-Identifier: MIT
 * decode_lanes.cl - the few query rows of one KV head's group against one chunk of keys, on any GPU and in any storage type: a work-group per work item.
 * decode.cl is the form for CPUs, decode_matrix.cl that for matrix units.
 *
 *     s[key][r] = sum_d q[r][d] k[key][d]      a team of work-items reads a key, eight dimensions each, for RT rows; their sums meet in local memory
 *     m = max s   p = e^(s - m)   l = sum p    over the chunk, in local memory: PER_ROW work-items over the keys, then one
 *     o[r][d]   = sum_key p[key][r] v[key][d]  a team reads a value, eight dimensions each, for RT rows; at the end the teams' sums meet, in their order
 *
 * Each key and value is read once from memory for RT rows, by neighbours side by side; what a team reads next is on its way while it works on what
 * came before.
 *
 *   LOCAL_X    work-items per group, a power of two from 8 on        KV_CHUNK   keys per work item (256): both decide the bits
 */
#define RT (GROUP < 8 ? GROUP : 8) /* rows at a time */
#define PIECES(dim) (((dim) + 7) / 8)
#define POWER(n) ((n) <= 1 ? 1 : (n) <= 2 ? 2 : (n) <= 4 ? 4 : (n) <= 8 ? 8 : (n) <= 16 ? 16 : (n) <= 32 ? 32 : (n) <= 64 ? 64 : 128)
#define TEAM_OF(dim) (POWER(PIECES(dim)) < LANES ? POWER(PIECES(dim)) : LANES)
#define SLABS_OF(dim) ((PIECES(dim) + TEAM_OF(dim) - 1) / TEAM_OF(dim))
#define K_TEAM TEAM_OF(HEAD_DIM)      /* work-items that share a key */
#define V_TEAM TEAM_OF(V_HEAD_DIM)
#define K_SLABS SLABS_OF(HEAD_DIM)    /* pieces of eight dimensions per work-item */
#define V_SLABS SLABS_OF(V_HEAD_DIM)
#define K_TEAMS (LANES / K_TEAM)
#define V_TEAMS (LANES / V_TEAM)
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))
/* Keys per team and turn. */
#define DEPTH(slabs) (RT * (slabs) <= 2 ? 8 : (slabs) <= 2 ? 4 : 1)
#define K_DEPTH LEAST(DEPTH(K_SLABS), KV_CHUNK / K_TEAMS)
#define V_DEPTH LEAST(DEPTH(V_SLABS), KV_CHUNK / V_TEAMS)
#define K_TURN (K_TEAMS * K_DEPTH)
#define V_TURN (V_TEAMS * V_DEPTH)
#define PART_STEP (K_TEAM < 2 ? 1 : K_TEAM + 2) /* even, and the steps of neighbours fall into different banks */
#define PER_ROW (LANES / RT)                    /* work-items that share the weights of a row; those behind the last have none */
#define UNITS (RT * V_SLABS)                    /* accumulators of eight */
#define ROOM MOST(K_TURN * RT * PART_STEP, LANES * 8)
#define UNITS_AT_ONCE LEAST(UNITS, ROOM / (LANES * 8))
#define FENCE barrier(CLK_LOCAL_MEM_FENCE)
#define UNROLL _Pragma("unroll")
#define HIDDEN 0x80000000u /* the weight -0 */

#if LANES < 8 || LANES & (LANES - 1) || KV_CHUNK % K_TURN || KV_CHUNK % V_TURN
#error "work-items per group: a power of two from 8 to the keys of a chunk"
#endif

/* ---- eight elements of a row, as they are stored ----------------------------------
 * fetch_T(row, d, left, aligned): elements d ... d + 7, zeros from the left-th on; aligned: whole pieces lie where vectors of their size may (vload promises an
 * element's alignment only, which to some compilers means a load per element). open_T: to f32, without a tensor's scales. */

typedef struct { uint4 low, high; } raw_1;
typedef uint4 raw_2;
typedef uint4 raw_3;
typedef uint2 raw_4;
typedef struct { uint2 codes; float scale; } raw_5;
typedef raw_5 raw_6;
typedef uint2 raw_7;
typedef uint2 raw_8;

static inline raw_1 fetch_1(global const uchar *row, int d, int left, bool aligned)
{
    raw_1 x = {0, 0};
    if (left >= 8 && aligned) {
        x.low = AT(uint4, row + 4 * d)[0];
        x.high = AT(uint4, row + 4 * d)[1];
    } else if (left > 0) {
        global const uint *from = AT(uint, row) + d;
        x.low = (uint4)(from[0], left > 1 ? from[1] : 0, left > 2 ? from[2] : 0, left > 3 ? from[3] : 0);
        x.high = (uint4)(left > 4 ? from[4] : 0, left > 5 ? from[5] : 0, left > 6 ? from[6] : 0, left > 7 ? from[7] : 0);
    }
    return x;
}

static inline uint pair_at(global const ushort *from, int e, int left)
{
    const uint low = e < left ? from[e] : 0, high = e + 1 < left ? from[e + 1] : 0;
    return low | high << 16;
}
static inline uint4 fetch_2(global const uchar *row, int d, int left, bool aligned)
{
    global const ushort *from = AT(ushort, row) + d;
    if (left >= 8 && aligned) return AT(uint4, from)[0];
    return (uint4)(pair_at(from, 0, left), pair_at(from, 2, left), pair_at(from, 4, left), pair_at(from, 6, left));
}
#define fetch_3 fetch_2

static inline uint four_at(global const uchar *from, int e, int left)
{
    const uint a = e < left ? from[e] : 0, b = e + 1 < left ? from[e + 1] : 0, c = e + 2 < left ? from[e + 2] : 0, d = e + 3 < left ? from[e + 3] : 0;
    return a | b << 8 | c << 16 | d << 24;
}
static inline uint2 fetch_4(global const uchar *row, int d, int left, bool aligned)
{
    if (left >= 8 && aligned) return AT(uint2, row + d)[0];
    return (uint2)(four_at(row + d, 0, left), four_at(row + d, 4, left));
}
#define fetch_7 fetch_4
#define fetch_8 fetch_4

/* Blocks begin at even addresses, and are whole. */
static inline raw_5 fetch_5(global const uchar *row, int d, int left, bool aligned)
{
    raw_5 x = {0, 0};
    if (left <= 0) return x;
    global const uchar *block = row + d / 32 * 34;
    global const ushort *from = AT(ushort, block + 2 + d % 32);
    x.codes = (uint2)(pair_at(from, 0, 4), pair_at(from, 2, 4));
    x.scale = vload_half(0, AT(half, block));
    return x;
}
static inline raw_6 fetch_6(global const uchar *row, int d, int left, bool aligned)
{
    raw_6 x = {0, 0};
    if (left <= 0) return x;
    global const uchar *block = row + d / 32 * 18;
    global const ushort *from = AT(ushort, block + 2 + d % 16);
    x.codes = (uint2)(pair_at(from, 0, 4), pair_at(from, 2, 4)) >> (uint)(d % 32 / 16 * 4) & 0x0f0f0f0fu;
    x.scale = vload_half(0, AT(half, block));
    return x;
}

static inline float8 open_1(raw_1 x) { return (float8)(as_float4(x.low), as_float4(x.high)); }
static inline float8 open_2(uint4 x) { return vload_half8(0, (private const half *)&x); }
static inline float8 open_3(uint4 x)
{
    const float4 even = as_float4(x << 16), odd = as_float4(x & 0xffff0000u);
    return (float8)(even.s0, odd.s0, even.s1, odd.s1, even.s2, odd.s2, even.s3, odd.s3);
}
/* Bytes 0 ... 255, less `zero`: a byte in the last place of 2^23 is an f32 without a conversion, which GPUs do at a quarter of their rate. */
static inline float4 bytes4(uint x, float zero)
{
    const uint4 place = (uint4)(x, x >> 8, x >> 16, x >> 24) & 0xffu;
    return as_float4(place | 0x4b000000u) - (float4)(8388608.0f + zero);
}
static inline float8 bytes8(uint2 x, float zero) { return (float8)(bytes4(x.s0, zero), bytes4(x.s1, zero)); }
static inline float8 open_4(uint2 x) { return bytes8(x ^ 0x80808080u, 128); }
static inline float8 open_5(raw_5 x) { return (float8)x.scale * bytes8(x.codes ^ 0x80808080u, 128); }
static inline float8 open_6(raw_6 x) { return (float8)x.scale * bytes8(x.codes, 8); }
static inline float8 open_7(uint2 x)
{
    return (float8)(from_e4m3_4(convert_int4(as_uchar4(x.s0))), from_e4m3_4(convert_int4(as_uchar4(x.s1))));
}
static inline float8 open_8(uint2 x)
{
    return (float8)(from_e5m2_4(convert_int4(as_uchar4(x.s0))), from_e5m2_4(convert_int4(as_uchar4(x.s1))));
}
#define RAW(type) GLUE(raw_, type)
#define FETCH(type) GLUE(fetch_, type)
#define OPEN(type) GLUE(open_, type)

/* Do all rows begin where a piece may be read at once? */
static inline bool pieces_aligned(global const uchar *base, struct view view, int type)
{
    const ulong bits = (ulong)(size_t)base | (ulong)(view.offset | view.batch | view.head | view.token);
    return (bits & (HAS_SCALE(type) ? 7 : 15)) == 0;
}

static inline float dot8(float8 x, float8 y, float sum)
{
    sum = fma(x.s3, y.s3, fma(x.s2, y.s2, fma(x.s1, y.s1, fma(x.s0, y.s0, sum))));
    return fma(x.s7, y.s7, fma(x.s6, y.s6, fma(x.s5, y.s5, fma(x.s4, y.s4, sum))));
}

/* ---- the kernel ----------------------------------------------------------------- */

#if PAGED
#define K_AT(n) k_at[n]
#define V_AT(n) v_at[n]
#else
#define K_AT(n) (k_at + (n) * st.k.token)
#define V_AT(n) (v_at + (n) * st.v.token)
#endif

/* What a team reads of the keys or values of a turn; those outside [lo, hi) repeat one inside. */
#define BRING_AS(next, turn, kind, KIND, DIM, ALIGNED_ROWS)                                                                      \
    UNROLL for (int c = 0; c < KIND##_DEPTH; c++)                                                                                \
    {                                                                                                                            \
        global const uchar *row_ = kind + KIND##_AT(clamp((turn) + c * KIND##_TEAMS + lane / KIND##_TEAM, lo, hi - 1));          \
        UNROLL for (int slab = 0; slab < KIND##_SLABS; slab++)                                                                   \
        {                                                                                                                        \
            const int d = (slab * KIND##_TEAM + lane % KIND##_TEAM) * 8;                                                         \
            next[c][slab] = FETCH(KIND##_TYPE)(row_, d, (DIM) == KIND##_SLABS * KIND##_TEAM * 8 ? 8 : (DIM)-d, ALIGNED_ROWS);    \
        }                                                                                                                        \
    }
#define BRING(next, turn, kind, KIND, DIM)                                                                                       \
    {                                                                                                                            \
        if (kind##_aligned) BRING_AS(next, turn, kind, KIND, DIM, true)                                                          \
        else BRING_AS(next, turn, kind, KIND, DIM, false)                                                                        \
    }

/* RT weights of a key. */
static inline void load_weights(float w[RT], local const float *from)
{
    if (RT % 4 == 0) {
        UNROLL for (int r = 0; r + 3 < RT; r += 4)
        {
            const float4 four = *(local const float4 *)(from + r);
            w[r] = four.s0, w[r + 1] = four.s1, w[r + 2] = four.s2, w[r + 3] = four.s3;
        }
    } else {
        UNROLL for (int r = 0; r < RT; r++) w[r] = from[r];
    }
}

/* 0 where all are finite, else NaN. */
static inline float not_finite(float8 x)
{
    const float4 y = x.lo * 0.0f + x.hi * 0.0f;
    return (y.s0 + y.s1) + (y.s2 + y.s3);
}

ATTENTION_KERNEL void decode_lanes(ATTENTION_ARGUMENTS)
{
    local float room[ROOM] ALIGNED, p[KV_CHUNK * RT] ALIGNED, share[RT * PER_ROW], row_m[RT], row_l[RT], row_by[2 * RT];
    local struct row seen[RT];
    local int hidden; /* does any row not see any key that is read? */
#if PAGED
    local long k_at[KV_CHUNK], v_at[KV_CHUNK];
#endif
    const int number = ITEM_NUMBER, lane = LANE;
    if (number >= item_count) return; /* the whole group */
    const struct work_item item = AT(struct work_item, items)[item_first + number];
    const struct sequence s = sequences[item.sequence];
    const int b = item.sequence, g = item.head, rows = (item.q_end - item.q_begin) * GROUP, chunk = item.kv_begin;
    const bool k_aligned = pieces_aligned(k, st.k, K_TYPE), v_aligned = pieces_aligned(v, st.v, V_TYPE);

    for (int first = 0; first < rows; first += RT) {
        /* rows behind the last repeat it; nothing of them is stored */
        int lo = KV_CHUNK, hi = 0;
        for (int i = first / GROUP; i <= min(first + RT - 1, rows - 1) / GROUP; i++) {
            const struct row row = row_of(st, s, b, g * GROUP, item.q_begin + i, q_positions, key_range, alibi, problem);
            const int from = clamp(row.begin - chunk, 0, KV_CHUNK), to = clamp(row.end - chunk, 0, item.kv_end - chunk);
            lo = from < to ? min(lo, from) : lo;
            hi = from < to ? max(hi, to) : hi;
        }
        const int begin = lo < hi ? lo / K_TURN * K_TURN : 0, end = lo < hi ? (hi + K_TURN - 1) / K_TURN * K_TURN : 0;
        RAW(K_TYPE) next_k[K_DEPTH][K_SLABS];
        FENCE; /* the last pass is over */
#if PAGED
        for (int n = lane; n < KV_CHUNK; n += LANES)
            if (n >= lo && n < hi) {
                k_at[n] = key_offset(st.k, s, page_table, b, g, chunk + n, problem);
                v_at[n] = key_offset(st.v, s, page_table, b, g, chunk + n, problem);
            }
        FENCE;
#else
        const long k_at = key_offset(st.k, s, page_table, b, g, chunk, problem), v_at = key_offset(st.v, s, page_table, b, g, chunk, problem);
#endif
        if (lo < hi) BRING(next_k, begin, k, K, HEAD_DIM)
        if (lane < RT) {
            const int n = min(first + lane, rows - 1);
            seen[lane] = row_of(st, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP, q_positions, key_range, alibi, problem);
        }
        if (lane == 0) hidden = 0;
        float8 query[RT][K_SLABS];
        UNROLL for (int r = 0; r < RT; r++)
        {
            const int n = min(first + r, rows - 1);
            global const uchar *q_row = q + query_offset(st.q, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP);
            UNROLL for (int slab = 0; slab < K_SLABS; slab++)
            {
                const int d = (slab * K_TEAM + lane % K_TEAM) * 8;
                query[r][slab] = OPEN(Q_TYPE)(FETCH(Q_TYPE)(q_row, d, HEAD_DIM - d, false));
            }
        }

        float top = -INFINITY; /* of row lane % RT */
        for (int turn = begin; turn < end; turn += K_TURN) {
            RAW(K_TYPE) key[K_DEPTH][K_SLABS];
            UNROLL for (int x = 0; x < K_DEPTH * K_SLABS; x++) key[x / K_SLABS][x % K_SLABS] = next_k[x / K_SLABS][x % K_SLABS];
            if (turn + K_TURN < end) BRING(next_k, turn + K_TURN, k, K, HEAD_DIM)
            UNROLL for (int c = 0; c < K_DEPTH; c++)
            {
                float sum[RT];
                UNROLL for (int slab = 0; slab < K_SLABS; slab++)
                {
                    const float8 x = OPEN(K_TYPE)(key[c][slab]);
                    UNROLL for (int r = 0; r < RT; r++) sum[r] = dot8(x, query[r][slab], slab ? sum[r] : 0);
                }
                UNROLL for (int r = 0; r < RT; r++) room[((c * K_TEAMS + lane / K_TEAM) * RT + r) * PART_STEP + lane % K_TEAM] = sum[r];
            }
            FENCE;
            for (int x = lane < PER_ROW * RT ? lane : K_TURN * RT; x < K_TURN * RT; x += PER_ROW * RT) {
                const int n = turn + x / RT, j = chunk + n;
                local const float *part = room + x * PART_STEP;
                float score = part[0], odd = K_TEAM > 1 ? part[K_TEAM - 1] : 0, capped;
                UNROLL for (int t = 1; t < K_TEAM - 1; t += 2)
                {
                    score += part[t + 1];
                    odd += part[t];
                }
#ifndef MUTANT_cl_lanes_team
                score += odd;
#endif
                if (j < s.kv_len) {
                    if (HAS_SCALE(K_TYPE)) score *= AT(float, k_scale + key_offset(st.k_scale, s, page_table, b, g, j, problem))[0];
                    score = logit1(score * SCALE, j, seen[lane % RT], mask, bias, &capped, problem);
                } else score = -INFINITY;
                p[turn * RT + x] = score;
                top = LARGER(top, score);
            }
            FENCE;
        }

        /* the first values travel while the weights are made */
        RAW(V_TYPE) next_v[V_DEPTH][V_SLABS];
        const int v_begin = lo < hi ? lo / V_TURN * V_TURN : 0, v_end = lo < hi ? (hi + V_TURN - 1) / V_TURN * V_TURN : 0;
        if (lo < hi) BRING(next_v, v_begin, v, V, V_HEAD_DIM)

        if (lane < PER_ROW * RT) share[lane % RT * PER_ROW + lane / RT] = top;
        FENCE;
        if (lane < RT) {
            float all = -INFINITY;
            for (int c = 0; c < PER_ROW; c++) all = LARGER(all, share[lane * PER_ROW + c]);
            row_m[lane] = all;
        }
        FENCE;
        const float m = row_m[lane % RT], base = m == -INFINITY ? 0 : m;
        float sum = 0; /* of row lane % RT */
        bool any = false;
        for (int x = min(begin, v_begin) * RT + (lane < PER_ROW * RT ? lane : KV_CHUNK * RT); x < max(end, v_end) * RT; x += PER_ROW * RT) {
            const bool given = x >= begin * RT && x < end * RT;
            const float score = given ? p[x] : -INFINITY, w = score == -INFINITY ? as_float(HIDDEN) : exp_1(score - base);
            p[x] = w;
            sum += w;
            any = any || score == -INFINITY;
        }
        if (lane < PER_ROW * RT) share[lane % RT * PER_ROW + lane / RT] = sum;
        if (any) hidden = 1;
        FENCE;
        if (lane < RT) {
            float l[4] = {0, 0, 0, 0};
            UNROLL for (int c = 0; c < PER_ROW; c++) l[c % 4] += share[lane * PER_ROW + c];
            row_l[lane] = (l[0] + l[1]) + (l[2] + l[3]);
        }
        FENCE;
#if HAS_SCALE(V_TYPE)
        for (int x = lo * RT + lane; x < hi * RT; x += LANES)
            if (as_uint(p[x]) != HIDDEN) p[x] *= AT(float, v_scale + key_offset(st.v_scale, s, page_table, b, g, chunk + x / RT, problem))[0];
        FENCE;
#endif

        /* a weight of -0 changes no sum, unless the value is not finite */
        const bool may_hide = hidden != 0;
        float8 acc[RT][V_SLABS];
        UNROLL for (int x = 0; x < UNITS; x++) acc[x / V_SLABS][x % V_SLABS] = 0;
        for (int turn = v_begin; turn < v_end + LOOP_GUARD; turn += V_TURN) {
            RAW(V_TYPE) value[V_DEPTH][V_SLABS];
            UNROLL for (int x = 0; x < V_DEPTH * V_SLABS; x++) value[x / V_SLABS][x % V_SLABS] = next_v[x / V_SLABS][x % V_SLABS];
            if (turn + V_TURN < v_end) BRING(next_v, turn + V_TURN, v, V, V_HEAD_DIM)
            UNROLL for (int c = 0; c < V_DEPTH; c++)
            {
                float w[RT], wrong = 0;
                float8 x[V_SLABS];
                load_weights(w, p + (turn + c * V_TEAMS + lane / V_TEAM) * RT);
                UNROLL for (int slab = 0; slab < V_SLABS; slab++)
                {
                    x[slab] = OPEN(V_TYPE)(value[c][slab]);
                    if (may_hide) wrong += not_finite(x[slab]);
                }
#ifdef MUTANT_cl_lanes_hidden_values
                wrong = 0;
#endif
                UNROLL for (int n = 0; n < UNITS; n++)
                {
                    const int r = n / V_SLABS, slab = n % V_SLABS;
                    if (wrong == 0 || as_uint(w[r]) != HIDDEN) acc[r][slab] = fma((float8)w[r], x[slab], acc[r][slab]);
                }
            }
        }

        /* nobody reads the room since the weights were made */
        if (lane < RT && first + lane < rows) {
            const int n = first + lane;
            if (item.part >= 0) {
                global float *sums = part_sums(work, part_rows, (long)item.part + n, problem);
                sums[0] = row_m[lane];
                sums[1] = row_l[lane];
            } else {
                const float2 by = end_row(row_m[lane], row_l[lane], st, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP, lse, sinks, true, problem);
                row_by[2 * lane] = by.s0;
                row_by[2 * lane + 1] = by.s1;
            }
        }
        UNROLL for (int first_unit = 0; first_unit < UNITS; first_unit += UNITS_AT_ONCE)
        {
            UNROLL for (int u = 0; u < UNITS_AT_ONCE; u++)
                if (first_unit + u < UNITS)
                    *(local float8 *)(room + (u * LANES + lane) * 8) = acc[(first_unit + u) / V_SLABS][(first_unit + u) % V_SLABS];
            FENCE;
            for (int x = lane; x < UNITS_AT_ONCE * V_TEAM * 2; x += LANES) {
                const int unit = first_unit + x / (V_TEAM * 2), r = unit / V_SLABS, n = first + r;
                const int d = (unit % V_SLABS * V_TEAM * 2 + x % (V_TEAM * 2)) * 4;
                if (unit >= UNITS || n >= rows || d >= V_HEAD_DIM) continue;
                local const float4 *sums = (local const float4 *)room + x / (V_TEAM * 2) * LANES * 2 + x % (V_TEAM * 2);
                float4 all = sums[0];
#ifndef MUTANT_cl_lanes_teams
                UNROLL for (int team = 1; team < V_TEAMS; team++) all += sums[team * V_TEAM * 2];
#endif
                const float one[4] = {all.s0, all.s1, all.s2, all.s3};
                global float *part = work + ((long)item.part + n) * V_HEAD_DIM;
                global uchar *to = o + query_offset(st.o, s, b, g * GROUP + n % GROUP, item.q_begin + n / GROUP);
                if (item.part >= 0 && V_HEAD_DIM % 4 == 0) *(global float4 *)(part + d) = all;
                else {
                    UNROLL for (int e = 0; e < 4; e++)
                        if (d + e < V_HEAD_DIM) {
                            if (item.part >= 0) part[d + e] = one[e];
                            else GLUE(store1_, O_TYPE)(to, d + e, row_l[r] == 0 ? 0.0f : one[e] * row_by[2 * r] / row_by[2 * r + 1]);
                        }
                }
            }
            FENCE;
        }
    }
}
