/* SPDX-License-Identifier: MIT
 * test_dot.c - the dot product and what is built from it, by the numbers of the lesson, and bad input.
 */
#include "heed.h"
#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>
#include <string.h>

static void near(double got, double expected, double tolerance)
{
    cr_assert(fabs(got - expected) <= tolerance, "%.17g, expected %.17g", got, expected);
}

Test(dot, lesson)
{
    const float a[] = {1, 2, 3}, b[] = {4, 5, 6};
    cr_assert_eq(heed_dot(a, b, 3), 32);
    cr_assert_eq(heed_norm_squared(a, 3), 14);
    cr_assert_eq(heed_norm_squared(b, 3), 77);
    near(heed_cosine(a, b, 3), 0.974631846197076, 1e-14);
    near(heed_score(a, b, 3), 32 / sqrt(3), 1e-14);
}

Test(dot, sign_tells_the_angle)
{
    const float east[] = {1, 0}, north[] = {0, 1}, west[] = {-2, 0}, both[] = {3, 3};
    cr_assert_eq(heed_dot(east, north, 2), 0);
    cr_assert_eq(heed_dot(east, west, 2), -2);
    cr_assert_eq(heed_dot(east, both, 2), 3);
    cr_assert_eq(heed_cosine(east, west, 2), -1);
    cr_assert_eq(heed_cosine(east, north, 2), 0);
    near(heed_cosine(east, both, 2), sqrt(0.5), 1e-15);
}

Test(dot, score_of_the_lesson)
{
    const float q[] = {0.5f, 0.3f, -0.2f}, k[] = {0.4f, 0.8f, 0.1f};
    near(heed_dot(q, k, 3), 0.42, 1e-7);
    near(heed_score(q, k, 3), 0.2425, 5e-5);
    near(heed_score(q, k, 3), heed_dot(q, k, 3) / sqrt(3), 1e-16);
}

Test(dot, weighted_sum)
{
    const float w[] = {0.5f, -1, 2}, x[] = {2, 3, 0.25f};
    cr_assert_eq(heed_weighted_sum(w, x, 3, 0.75f), 1 - 3 + 0.5 + 0.75);
    cr_assert_eq(heed_weighted_sum(w, x, 0, 0.75f), 0.75);
}

Test(dot, empty_and_zero)
{
    const float zero[] = {0, 0}, one[] = {1, 1};
    cr_assert_eq(heed_dot(NULL, NULL, 0), 0);
    cr_assert_eq(heed_norm_squared(NULL, 0), 0);
    cr_assert_eq(heed_cosine(NULL, NULL, 0), 0);
    cr_assert_eq(heed_score(NULL, NULL, 0), 0);
    cr_assert_eq(heed_cosine(zero, one, 2), 0);
    cr_assert_eq(heed_cosine(one, zero, 2), 0);
    cr_assert_eq(heed_cosine(zero, zero, 2), 0);
}

Test(dot, null_is_nan_with_a_message)
{
    const float a[] = {1};
    cr_assert(isnan(heed_dot(NULL, a, 1)));
    cr_assert(strstr(heed_error_message(), "a is NULL"), "%s", heed_error_message());
    cr_assert(isnan(heed_dot(a, NULL, 1)));
    cr_assert(strstr(heed_error_message(), "b is NULL"), "%s", heed_error_message());
    cr_assert(isnan(heed_norm_squared(NULL, 1)));
    cr_assert(isnan(heed_cosine(a, NULL, 1)));
    cr_assert(isnan(heed_score(NULL, a, 1)));
    cr_assert(strstr(heed_error_message(), "q is NULL"), "%s", heed_error_message());
    cr_assert(isnan(heed_weighted_sum(a, NULL, 1, 0)));
    cr_assert(strstr(heed_error_message(), "x is NULL"), "%s", heed_error_message());
}

/* In float the sum would be 0 (the 1 is lost beside 2^25), and the square of 1e30 infinite. */
Test(dot, in_double)
{
    const float a[] = {33554432, 1, -33554432}, ones[] = {1, 1, 1}, large[] = {1e30f, -1e30f};
    cr_assert_eq(heed_dot(a, ones, 3), 1);
    near(heed_norm_squared(large, 2) / 2e60, 1, 1e-6);
    near(heed_cosine(large, large, 2), 1, 1e-15);
}

/* Long sums, against a sum from the other end: the order is not the same, so only within the rounding of n additions. */
Test(dot, long_sum)
{
    enum { N = 4099 };
    static float a[N], b[N];
    double sum = 0, magnitude = 0;
    for (int i = 0; i < N; i++) a[i] = (float)sin(i), b[i] = (float)cos(3 * i);
    for (int i = N - 1; i >= 0; i--) sum += (double)a[i] * b[i], magnitude += fabs((double)a[i] * b[i]);
    near(heed_dot(a, b, N), sum, magnitude * N * 0x1p-52);
}

Test(dot, rounding_mode_of_the_caller_does_not_matter)
{
    const float a[] = {1, 1e-9f, 1e-9f, 1e-9f}, b[] = {1, 1e-9f, 1e-9f, 1e-9f};
    const double nearest = heed_dot(a, b, 4);
    fesetround(FE_UPWARD);
    const double upward = heed_dot(a, b, 4);
    const int mode = fegetround();
    fesetround(FE_TONEAREST);
    cr_assert_eq(nearest, upward);
    cr_assert_eq(mode, FE_UPWARD);
}
