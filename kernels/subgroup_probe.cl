/* SPDX-License-Identifier: MIT
 * subgroup_probe.cl - are sub-groups SG_LANES work-items that are consecutive in X, and do the words of subgroup.cl what they say? Whole numbers, which the host
 * (src/opencl/unit.c) wants exactly. For each of the SG_TEAMS sub-groups of the group and each of its lanes, n = local id:
 *
 *     out[4 n]     = the sum over steps e of (e + 1) x[lane e]            a number handed from one lane to all
 *     out[4 n + 1] = the sum over steps e of (e + 1) x[lane (5 l + e)]    from another lane to each
 *     out[4 n + 2] = the largest x                                        with x = in[n] + 8 n, all different
 *     out[4 n + 3] = the largest x, where only some lanes give theirs and the others -infinity
 */
ATTENTION_KERNEL SG_ATTRIBUTES void subgroup_probe(global const float *in, global float *out)
{
    SG_SCRATCH
    const int n = (int)get_local_id(0), l = SG_LANE;
    const float x = in[n] + (float)(8 * n);
    float all = 0, each = 0, top = x, some = l % 3 == 1 ? x : -INFINITY;
    SG_UNROLL for (int e = 0; e < SG_LANES; e++)
    {
        all += (float)(e + 1) * sg_from(x, e);
        each += (float)(e + 1) * sg_from(x, (5 * l + e) % SG_LANES);
    }
    SG_LARGEST(top)
    SG_LARGEST(some)
    out[4 * n] = all;
    out[4 * n + 1] = each;
    out[4 * n + 2] = top;
    out[4 * n + 3] = some;
}
