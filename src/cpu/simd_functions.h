/* SPDX-License-Identifier: MIT
 * simd_functions.h - exp2, exp and tanh in the words of a simd_*.h, which includes this file at its end: the same bits at every width. No libm.
 */
#ifndef HEED_SIMD_FUNCTIONS_H
#define HEED_SIMD_FUNCTIONS_H

/* Largest errors of vexp and vtanh over every float (tests/test_functions.c): 1.048 and 1.724; with two roundings in vfma 1.341 and 1.812. */
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

/* tanh x:  |x| < 0.625: x + x^3 P(x^2); else with e = exp(-2|x|): sign * (1 - 2e / (1 + e)). Odd, 1 exactly from about 9.1, NaN stays NaN. */
INLINE vf vtanh(vf x)
{
    vf a = vabs(x), z = vmul(x, x);
    vf p = vset1(-5.70498872745e-3f);
    p = vfma(p, z, vset1(2.06390887954e-2f));
    p = vfma(p, z, vset1(-5.37397155531e-2f));
    p = vfma(p, z, vset1(1.33314422036e-1f));
    p = vfma(p, z, vset1(-3.33332819422e-1f));
    vf small = vfma(vmul(p, z), x, x);
    vf e = vexp2(vmul(a, vset1(-2.0f * LOG2_E)));
    vf large = vsub(vset1(1.0f), vdiv(vadd(e, e), vadd(vset1(1.0f), e)));
    return vselect(vlt(a, vset1(0.625f)), small, vcopysign(large, x));
}

#endif
