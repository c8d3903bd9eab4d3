/* SPDX-License-Identifier: MIT
 * local_probe.cl - does a work-group have LOCAL_BYTES of local memory, whatever the device says? NVIDIA's driver names 48 KiB for every chip and gives what the
 * chip has. Every word is written by one work-item and read by another. out[lane] = 1 + words that were not what they should be; the host
 * (src/opencl/unit.c) wants 1 from each.
 */
kernel __attribute__((reqd_work_group_size(LOCAL_X, 1, 1))) void local_probe(global const uint *in, global float *out)
{
    local uint memory[LOCAL_BYTES / 4] ALIGNED;
    const uint lane = (uint)get_local_id(0), factor = in[0] | 1;
    uint wrong = 0;
    for (uint n = lane; n < LOCAL_BYTES / 4; n += LOCAL_X) memory[n] = n * factor;
    barrier(CLK_LOCAL_MEM_FENCE);
#ifdef MUTANT_cl_local_short
    if (lane == 0) memory[LOCAL_BYTES / 8] = 0; /* as if the upper half were the lower one */
#endif
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint n = (lane + 1) % LOCAL_X; n < LOCAL_BYTES / 4; n += LOCAL_X) wrong += memory[n] != n * factor;
    out[lane] = 1 + (float)wrong;
}
