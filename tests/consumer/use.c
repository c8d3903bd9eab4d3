/* SPDX-License-Identifier: MIT
 * A program of somebody else: C, and C++ when compiled as such. Attention of one query over two keys.
 */
#include <heed.h>
#include <math.h>
#include <stdio.h>

int main(void)
{
    float q[2] = {1, 0}, k[4] = {1, 0, 1, 0}, v[4] = {1, 2, 3, 4}, o[2] = {0, 0};
    heed_context *context = NULL;
    heed_desc desc = {0};
    heed_lengths lengths = {0};
    heed_tensors tensors = {0};
    desc.struct_size = sizeof desc;
    desc.q_heads = 1;
    desc.head_dim = 2;
    lengths.struct_size = sizeof lengths;
    lengths.batch = lengths.q_len = 1;
    lengths.kv_len = 2;
    tensors.struct_size = sizeof tensors;
    tensors.q.data = q, tensors.q.bytes = sizeof q;
    tensors.k.data = k, tensors.k.bytes = sizeof k, tensors.k.token_stride = 2;
    tensors.v.data = v, tensors.v.bytes = sizeof v, tensors.v.token_stride = 2;
    tensors.o.data = o, tensors.o.bytes = sizeof o;
    if (heed_context_create(NULL, &context) != HEED_OK || heed_forward(context, 0, &desc, &lengths, &tensors) != HEED_OK) {
        printf("%s\n", heed_error_message());
        return 1;
    }
    heed_context_destroy(context);
    printf("%.1f %.1f\n", (double)o[0], (double)o[1]);
    return fabsf(o[0] - 2) < 1e-6f && fabsf(o[1] - 3) < 1e-6f ? 0 : 1;
}
