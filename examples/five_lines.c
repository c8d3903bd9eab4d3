/* SPDX-License-Identifier: MIT
 * five_lines.c - the smallest program: attention of 2 queries over 3 keys, one head of 4 dimensions. No device is named: the CPU does it.
 * Build: cc five_lines.c -lheed
 */
#include <heed.h>
#include <stdio.h>

int main(void)
{
    float q[2][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}}, k[3][4] = {{4, 0, 0, 0}, {0, 4, 0, 0}, {0, 0, 4, 0}};
    float v[3][4] = {{1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}, o[2][4];

    heed_context *context;
    heed_desc desc = {.struct_size = sizeof desc, .q_heads = 1, .head_dim = 4};
    heed_lengths lengths = {.struct_size = sizeof lengths, .batch = 1, .q_len = 2, .kv_len = 3};
    heed_tensors tensors = {.struct_size = sizeof tensors, .q = {q, sizeof q, .token_stride = 4}, .k = {k, sizeof k, .token_stride = 4},
                            .v = {v, sizeof v, .token_stride = 4}, .o = {o, sizeof o, .token_stride = 4}};
    if (heed_context_create(NULL, &context) || heed_forward(context, 0, &desc, &lengths, &tensors)) {
        fprintf(stderr, "%s\n", heed_error_message());
        return 1;
    }
    heed_context_destroy(context);

    for (int i = 0; i < 2; i++) printf("query %d: %.4f %.4f %.4f %.4f\n", i, o[i][0], o[i][1], o[i][2], o[i][3]);
    return 0;
}
