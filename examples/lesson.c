/* SPDX-License-Identifier: MIT
 * lesson.c - from the dot product to attention, each number small enough to be followed by hand. The last step is the library's real work.
 * Build: cc lesson.c -lheed -lm
 */
#include <heed.h>
#include <math.h>
#include <stdio.h>

static void dot_product(void)
{
    const float a[3] = {1, 2, 3}, b[3] = {4, 5, 6};
    const double lengths = sqrt(heed_norm_squared(a, 3) * heed_norm_squared(b, 3)), cosine = heed_cosine(a, b, 3);
    puts("1. The dot product of a = (1, 2, 3) and b = (4, 5, 6), in three equal ways");
    printf("   sum of products      1*4 + 2*5 + 3*6 = %g\n", heed_dot(a, b, 3));
    printf("   lengths and angle    |a| |b| cos     = %.4f * %.4f = %.4f\n", lengths, cosine, lengths * cosine);
    printf("   row times column     (1 2 3)(4 5 6)T = %g, a matrix product of 1 x 3 and 3 x 1\n", heed_weighted_sum(a, b, 3, 0));
    printf("   cosine %.4f: nearly the same direction\n\n", cosine);
}

static void signs(void)
{
    const float east[2] = {1, 0}, north[2] = {0, 2}, west[2] = {-3, 0.5f};
    puts("2. What its sign means");
    printf("   (1, 0) . (0, 2)    = %g: zero, at right angles: nothing in common\n", heed_dot(east, north, 2));
    printf("   (1, 0) . (-3, 0.5) = %g: negative, more than a right angle: they disagree\n", heed_dot(east, west, 2));
    printf("   (1, 2, 3) with itself = %g: the squared length\n\n", heed_norm_squared((const float[3]){1, 2, 3}, 3));
}

static void neuron(void)
{
    const float weights[3] = {0.5f, -1, 2}, inputs[3] = {2, 1, 0.5f}, slope[1] = {1.8f}, celsius[1] = {20};
    const double sum = heed_weighted_sum(weights, inputs, 3, 0.25f);
    puts("3. A weighted sum plus a bias");
    printf("   a neuron: 0.5*2 - 1*1 + 2*0.5 + 0.25 = %g, after ReLU %g\n", sum, sum > 0 ? sum : 0);
    printf("   a linear regression: 1.8 * 20 C + 32 = %g F\n\n", heed_weighted_sum(slope, celsius, 1, 32));
}

/* One query, three keys: scores, softmax, weighted sum of values. By hand, and by the library. */
static int attention(void)
{
    float q[3] = {0.5f, 0.3f, -0.2f}, k[3][3] = {{0.4f, 0.8f, 0.1f}, {-0.6f, 0.2f, 0.9f}, {1, 0.5f, -0.4f}};
    float v[3][2] = {{1, 0}, {0, 1}, {0.5f, 0.5f}}, o[2], p[3];
    double weight[3], sum = 0, by_hand[2] = {0, 0};
    puts("4. Attention: q = (0.5, 0.3, -0.2) asks, three keys answer");
    printf("   q . k0 = %.2f, score = %.2f / sqrt 3 = %.4f\n", heed_dot(q, k[0], 3), heed_dot(q, k[0], 3), heed_score(q, k[0], 3));
    for (int j = 0; j < 3; j++) sum += weight[j] = exp(heed_score(q, k[j], 3));
    for (int j = 0; j < 3; j++) {
        weight[j] /= sum; /* softmax */
        for (int d = 0; d < 2; d++) by_hand[d] += weight[j] * v[j][d];
        printf("   key %d: score %7.4f, weight %.4f, value (%g, %g)\n", j, heed_score(q, k[j], 3), weight[j], v[j][0], v[j][1]);
    }
    printf("   weighted sum of values by hand     (%.6f, %.6f)\n", by_hand[0], by_hand[1]);

    heed_context *context;
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = 3, .v_head_dim = 2, .flags = HEED_WRITE_SCORES, .scores_stage = 3};
    heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 1, .kv_len = 3};
    heed_tensors tensors = {.struct_size = sizeof tensors, .q = {q, sizeof q, .token_stride = 3}, .k = {k, sizeof k, .token_stride = 3},
                            .v = {v, sizeof v, .token_stride = 2}, .o = {o, sizeof o, .token_stride = 2},
                            .scores = {p, sizeof p, .token_stride = 3}};
    if (heed_context_create(NULL, &context) != HEED_OK || heed_forward(context, 0, &desc, &lengths, &tensors) != HEED_OK) {
        fprintf(stderr, "%s\n", heed_error_message());
        return 1;
    }
    heed_context_destroy(context);
    printf("   the library's, heed_forward()      (%.6f, %.6f), weights %.4f %.4f %.4f\n", o[0], o[1], p[0], p[1], p[2]);
    return fabs(o[0] - by_hand[0]) + fabs(o[1] - by_hand[1]) < 1e-6 ? 0 : 1;
}

int main(void)
{
    dot_product();
    signs();
    neuron();
    return attention();
}
