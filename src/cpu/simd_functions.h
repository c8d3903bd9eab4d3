/* SPDX-License-Identifier: MIT
 * simd_functions.h - exp2, exp and softcap in the words of a simd_*.h, which includes this file at its end: the same bits at every width. No libm.
 * Last, masks by words that every set has, where it has no better ones.
 */
#ifndef HEED_SIMD_FUNCTIONS_H
#define HEED_SIMD_FUNCTIONS_H
#include "../mutant.h"

/* Largest errors of vexp and vsoftcap (c = 1: tanh) over every float (tests/test_functions.c): 1.048 and 1.391; with two roundings in vfma 1.341 and 1.421. */
#define EXP_ULP (VEC_FUSED ? 1.1f : 1.4f)
#define TANH_ULP 2
#define LOG2_E 1.44269504088896340736f
#define EXP2_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits */

/* Below ln 2^-126, whose e^x would be no normal number. */
#define EXP_LOW (-87.33654f)
#ifndef VEC_SCALES
#define VEC_SCALES 0 /* no vscale(): to look for such x is free, or one by one as good as in groups */
INLINE vf vscale(vf p, vf z) { (void)z; return p; }
INLINE int vevery(vm a) { return vany(a); }
#endif

/* 2^x for x <= 0:  n = round(x), r = x - n in [-1/2, 1/2], 2^x = 2^n * polynomial(r).
 * Minimax of degree 6, largest error 0.952 ulp over [-126, 0]. The constant term is exactly 1, so 2^0 = 1 exactly: equal logits get equal
 * weights. Exactly 0 below -126. NaN stays NaN, whatever its payload. */
INLINE vf vexp2(vf x)
{
    vf z = vadd(x, vset1(EXP2_MAGIC)), r = vsub(x, vsub(z, vset1(EXP2_MAGIC)));
    vf p = vset1(1.53533619e-4f);
    p = vfma(p, r, vset1(1.33988744e-3f));
    p = vfma(p, r, vset1(9.61843736e-3f));
    p = vfma(p, r, vset1(5.55033247e-2f));
    p = vfma(p, r, vset1(2.40226479e-1f));
    p = vfma(p, r, vset1(6.93147203e-1f));
    p = vfma(p, r, vset1(1.0f));
    return vscale_exp(p, z, x, -126.0f);
}

/* e^x for x <= 0: n = round(x / ln 2), r = x - n ln 2 in two steps (one rounding of the argument in all), the rest as above. 1.048 ulp; exactly
 * 1 at 0; exactly 0 below ln 2^-126; NaN stays NaN, whatever its payload. normal: x is no NaN and not below EXP_LOW. */
INLINE vf vexp_of(vf x, const int normal)
{
    vf z = vfma(x, vset1(LOG2_E), vset1(EXP2_MAGIC)), n = vsub(z, vset1(EXP2_MAGIC));
    vf r = vfma(n, vset1(-1.42860677e-6f), vfma(n, vset1(-0.693145752f), x));
    vf p = vset1(1.38436537e-3f);
    p = vfma(p, r, vset1(8.3741555e-3f));
    p = vfma(p, r, vset1(4.16680016e-2f));
    p = vfma(p, r, vset1(1.66664317e-1f));
    p = vfma(p, r, vset1(4.9999994e-1f));
    p = vfma(p, r, vset1(1.0f));
    p = vfma(p, r, vset1(1.0f));
    return normal ? vscale(p, z) : vscale_exp(p, z, x, EXP_LOW);
}
INLINE vf vexp(vf x) { return vexp_of(x, 0); }

/* e^x for x <= 0 where weights are about to be rounded to bf16: as vexp() with a minimax of degree 4 and one step of reduction. Exactly 1 at 0,
 * exactly 0 below ln 2^-126; NaN stays NaN. */
#define EXP_NEAR_ULP 64
INLINE vf vexp_near_of(vf x, const int normal)
{
    vf z = vfma(x, vset1(LOG2_E), vset1(EXP2_MAGIC)), r = vfma(vsub(z, vset1(EXP2_MAGIC)), vset1(-0.693147182f), x);
    vf p = vset1(4.23812941e-2f);
    p = vfma(p, r, vset1(1.68087825e-1f));
    p = vfma(p, r, vset1(4.99959528e-1f));
    p = vfma(p, r, vset1(9.99951482e-1f));
    p = vfma(p, r, vset1(1.0f));
    return normal ? vscale(p, z) : vscale_exp(p, z, x, EXP_LOW);
}
INLINE vf vexp_near(vf x) { return vexp_near_of(x, 0); }

/* c tanh(x / c) with inverse = 1 / c: y = x inverse.   |y| < 0.625: x + x y^2 P(y^2)   else: sign c (1 - e Q(e)), e = e^(-2 |y|), Q(e) = 2 / (1 + e) by a
 * polynomial on [0, e^-1.25]. No division. Odd, c exactly from |y| = 9.1 on, NaN stays NaN. Logits are seldom as large as 0.625 c, so the second half is left
 * out where no lane needs it: its cost would be three times that of the first. */
#define SOFTCAP_FAR 0.390625f /* 0.625^2 */

INLINE float softcap_inverse(float cap) { return cap >= 0x1p-127f ? 1 / cap : 0x1p127f; } /* never infinite: 0 times that would be NaN */

INLINE vf vsoftcap_near(vf x, vf y_squared)
{
    const vf z = y_squared;
    vf p = vset1(-5.70498872745e-3f);
    p = vfma(p, z, vset1(2.06390887954e-2f));
    p = vfma(p, z, vset1(-5.37397155531e-2f));
    p = vfma(p, z, vset1(1.33314422036e-1f));
    p = vfma(p, z, vset1(-3.33332819422e-1f));
    return vfma(vmul(p, z), x, x);
}

INLINE vf vsoftcap_far(vf y, vf cap)
{
    const vf e = vexp(vmul(vabs(y), vset1(-2)));
    vf q = vset1(-7.0736539e-1f); /* -Q */
    q = vfma(q, e, vset1(1.5185298f));
    q = vfma(q, e, vset1(-1.8958491f));
    q = vfma(q, e, vset1(1.9869802f));
    q = vfma(q, e, vset1(-1.9991049f));
    q = vfma(q, e, vset1(1.9999703f));
    q = vfma(q, e, vset1(-1.9999996f));
    return vcopysign(vmul(cap, vfma(e, q, vset1(1))), y);
}

INLINE vf vsoftcap(vf x, vf cap, vf inverse)
{
    const vf y = vmul(x, inverse), z = vmul(y, y), near = vsoftcap_near(x, z);
    const vm far = vge(z, vset1(SOFTCAP_FAR)); /* NaN is near */
    return vany(far) && !MUTANT(cpu_softcap_near) ? vselect(far, vsoftcap_far(y, cap), near) : near;
}

/* The same of four vectors, which are looked at together. */
INLINE void vsoftcap_4(vf x[4], vf cap, vf inverse)
{
    const vf limit = vset1(SOFTCAP_FAR);
    vf y[4], z[4];
    UNROLL for (int n = 0; n < 4; n++) {
        y[n] = vmul(x[n], inverse);
        z[n] = vmul(y[n], y[n]);
        x[n] = vsoftcap_near(x[n], z[n]);
    }
    if (!MUTANT(cpu_softcap_near) && vany(vor(vor(vge(z[0], limit), vge(z[1], limit)), vor(vge(z[2], limit), vge(z[3], limit)))))
        UNROLL for (int n = 0; n < 4; n++) x[n] = vselect(vge(z[n], limit), vsoftcap_far(y[n], cap), x[n]);
}

/* Which of VW keys are seen by each of VW rows of a mask: lane r of vkey_shown(n) tells of row r and key j + n, n < count. A key is a byte or (bits) a bit;
 * j is a multiple of VW. vload_shown returns 1 where all VW by VW are seen, if that is easy to tell. */
#ifndef VEC_SHOWN
struct shown_keys { vf t[VW]; };
INLINE int vload_shown(const unsigned char *const *rows, int32_t j, int count, int bits, struct shown_keys *shown)
{
    for (int r = 0; r < VW; r++) shown->t[r] = bits ? vload_bits_n(rows[r], j, count) : vload_u8_n(rows[r] + j, count);
    vtranspose(shown->t);
    return 0;
}
INLINE vm vkey_shown(const struct shown_keys *shown, int n) { return vne(shown->t[n], vset1(0)); }
#endif

#endif
