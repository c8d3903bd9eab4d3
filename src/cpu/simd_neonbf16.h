/* SPDX-License-Identifier: MIT
 * simd_neonbf16.h - cells of two bf16 for the templates that multiply cell by cell (panel.inc.h), on the bf16 dots of ARMv8.6; all else is simd_neon.h's.
 *
 * BFDOT multiplies exactly, adds the two products of a lane and then that to the sum; each addition is rounded to odd, which errs by less than one unit in
 * the last place, and every denormal, taken or made, is 0. Whatever FPCR says, but for its bit EBF, which cpu.c clears: with it there would be one rounding.
 * BFMMLA, four products for each of four sums, is two of these one after the other: it has the same bits.
 */
#ifndef HEED_SIMD_NEONBF16_H
#define HEED_SIMD_NEONBF16_H
#define CELL 2
#define CELL_TOGETHER 2 /* products that are added to each other first */
#define CELL_ROUNDINGS 2 /* of an addition, in halves of a unit in the last place */
#define CELL_QUADS 1
#include "../mutant.h"
#include "simd_neon.h"

/* acc + the products of the upper and of the lower halves. */
INLINE vf vmac(vf acc, vf x, vf y) { return vbfdotq_f32(acc, vreinterpretq_bf16_f32(x), vreinterpretq_bf16_f32(y)); }
INLINE vf vmac_cell(vf acc, vf x, vcell y)
{
    __asm__("bfdot %0.4s, %1.8h, %2.2h[0]" : "+w"(acc) : "w"(x), "w"(y));
    return acc;
}

/* The same for weights p and values v, where a weight of -0 marks a hidden key: it takes no part, whatever v is. */
INLINE vf vmac_seen(vf acc, vf p, vf v)
{
    const uint16x8_t hidden = vceqq_u16(vreinterpretq_u16_f32(p), vdupq_n_u16(MUTANT(cpu_pairs_hidden_values) ? 1 : 0x8000));
    return vmac(acc, p, vreinterpretq_f32_u16(vbicq_u16(vreinterpretq_u16_f32(v), hidden)));
}

/* bf16 in the form of floats, nearest even. */
INLINE vf vround(vf p) { return vwiden_bf16(vreinterpret_u16_bf16(vcvt_bf16_f32(p))); }

/* Lower halves: a, upper: b, as bf16, nearest even. */
INLINE vf vpack(vf a, vf b)
{
    const uint16x8_t both = vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(a), b));
    return vreinterpretq_f32_u16(vzip1q_u16(both, vextq_u16(both, both, 4)));
}

/* The lower half as a float. */
INLINE vf vlower(vf a) { return vfloat_of(vshlq_n_u32(vbits_of(a), 16)); }

/* The first n of eight elements of 16 bits; the rest 0. */
INLINE uint16x8_t vload_eight_n(const uint16_t *p, int n)
{
    return n >= 2 * VW ? vld1q_u16(p) : vcombine_u16(vload_u16_n(p, n), vload_u16_n(p + VW, n - VW));
}

/* The first n elements at p as cells, zeros behind. */
INLINE vf vload_cells_n(const uint16_t *p, int n) { return vreinterpretq_f32_u16(vload_eight_n(p, n)); }

/* ---- words of panel_quads.inc.h ---------------------------------------------------- */



/* acc[i][n] + sum over the four elements of rows i of x and n of y; a vector holds two rows. */
INLINE vf vmac_quads(vf acc, vf x, vf y) { return vbfmmlaq_f32(acc, vreinterpretq_bf16_f32(x), vreinterpretq_bf16_f32(y)); }

/* Lanes 0 and 2 of a, then of b; 1 and 3; lanes of a and b by turns, from 0 on, from 2 on. */
INLINE vf veven(vf a, vf b) { return vuzp1q_f32(a, b); }
INLINE vf vodd(vf a, vf b) { return vuzp2q_f32(a, b); }
INLINE vf vzip_low(vf a, vf b) { return vzip1q_f32(a, b); }
INLINE vf vzip_high(vf a, vf b) { return vzip2q_f32(a, b); }

/* Lane r of four vectors as bf16, nearest even, side by side: r = 0 and 1, then 2 and 3. */
INLINE void vpack_quads(const vf e[4], vf *first, vf *second)
{
    const uint16x8_t low = vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(e[0]), e[1]));
    const uint16x8_t high = vreinterpretq_u16_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(e[2]), e[3]));
    const uint16x8_t even = vzip1q_u16(low, high), odd = vzip2q_u16(low, high);
    *first = vreinterpretq_f32_u16(vzip1q_u16(even, odd));
    *second = vreinterpretq_f32_u16(vzip2q_u16(even, odd));
}

/* Eight elements of two rows, the first n of them: four of one, four of two, and so on. */
INLINE void vpair_keys(const uint16_t *one, const uint16_t *two, int n, float *to)
{
    const uint64x2_t x = vreinterpretq_u64_u16(vload_eight_n(one, n)), y = vreinterpretq_u64_u16(vload_eight_n(two, n));
    vst1q_u64((uint64_t *)to, vzip1q_u64(x, y));
    vst1q_u64((uint64_t *)(to + VW), vzip2q_u64(x, y));
}

/* Eight elements of four rows, the first n of them: element 0 of each, element 1 of each, and so on. */
INLINE void vquad_values(const uint16_t *const rows[4], int n, float *to)
{
    uint16x8_t x[4];
    UNROLL for (int i = 0; i < 4; i++) x[i] = vload_eight_n(rows[i], n);
    const uint16x8_t a = vzip1q_u16(x[0], x[2]), b = vzip1q_u16(x[1], x[3]), c = vzip2q_u16(x[0], x[2]), d = vzip2q_u16(x[1], x[3]);
    vstore(to, vreinterpretq_f32_u16(vzip1q_u16(a, b)));
    vstore(to + VW, vreinterpretq_f32_u16(vzip2q_u16(a, b)));
    vstore(to + 2 * VW, vreinterpretq_f32_u16(vzip1q_u16(c, d)));
    vstore(to + 3 * VW, vreinterpretq_f32_u16(vzip2q_u16(c, d)));
}

/* ---- words of decode ----------------------------------------------------------------- */

/* Eight cells of one[d] and two[d], those of d >= n are 0. */
INLINE void vzip8_n(const uint16_t *one, const uint16_t *two, int n, vf *to)
{
    const uint16x8_t x = vload_eight_n(one, n), y = vload_eight_n(two, n);
    to[0] = vreinterpretq_f32_u16(vzip1q_u16(x, y));
    to[1] = vreinterpretq_f32_u16(vzip2q_u16(x, y));
}

/* Lanes d of four vectors: cell of one[d] and two[d], d < n <= 16. */
INLINE void vzip16(const uint16_t *one, const uint16_t *two, int n, vf *to)
{
    vzip8_n(one, two, n, to);
    vzip8_n(one + 8, two + 8, n - 8, to + 2);
}
INLINE void vzip32(const uint16_t *one, const uint16_t *two, vf *to)
{
    vzip16(one, two, 16, to);
    vzip16(one + 16, two + 16, 16, to + 4);
}

/* to[d] = cell of one[d] and two[d], d < n <= 8. */
INLINE void vzip(const uint16_t *one, const uint16_t *two, int n, float *to)
{
    vf both[2];
    vzip8_n(one, two, n, both);
    vstore_n(to, both[0], n);
    vstore_n(to + VW, both[1], n - VW);
}

#endif
