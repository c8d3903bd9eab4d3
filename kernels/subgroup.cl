/* SPDX-License-Identifier: MIT
 * subgroup.cl - the words of sub-groups: the lanes of one hand each other numbers without local memory and without a barrier. Sub-groups are SG_LANES work-items that are
 * consecutive in X; that they are is no promise of any extension, and subgroup_probe.cl decides.
 *
 *   SG_WORDS   1 emulated: local memory and barriers, for tests; a group is one sub-group, and all its work-items take the same way
 *              2 cl_intel_subgroups, with the size required where there is cl_intel_required_subgroup_size
 *              3 cl_khr_subgroups and cl_khr_subgroup_shuffle
 *   sg_from(x, lane)   x of that lane, the same for all or another for each
 *   SG_LARGEST(x)      x becomes the largest of all lanes, in each of them
 */
#if SG_WORDS == 1
#define SG_SCRATCH local float sg_box[SG_LANES];
#define SG_ATTRIBUTES
#define SG_UNROLL _Pragma("unroll 1") /* unrolled, the barriers alone cost a driver ten seconds of compiling */
static inline float sg_through(local float *box, float x, int lane)
{
    barrier(CLK_LOCAL_MEM_FENCE);
    box[get_local_id(0)] = x;
    barrier(CLK_LOCAL_MEM_FENCE);
#ifdef MUTANT_cl_sg_lane
    return box[lane ^ 1];
#endif
    return box[lane];
}
#define sg_from(x, lane) sg_through(sg_box, x, lane)
#else
#define SG_SCRATCH
#define SG_UNROLL _Pragma("unroll")
#if SG_WORDS == 2
#pragma OPENCL EXTENSION cl_intel_subgroups : enable
#define sg_from(x, lane) intel_sub_group_shuffle(x, (uint)(lane))
#else
#pragma OPENCL EXTENSION cl_khr_subgroups : enable
#pragma OPENCL EXTENSION cl_khr_subgroup_shuffle : enable
#define sg_from(x, lane) sub_group_shuffle(x, (uint)(lane))
#endif
#ifdef cl_intel_required_subgroup_size
#define SG_ATTRIBUTES __attribute__((intel_reqd_sub_group_size(SG_LANES)))
#else
#define SG_ATTRIBUTES
#endif
#endif

#define SG_LANE ((int)((uint)get_local_id(0) % SG_LANES))

/* A macro, because the emulation's box is the kernel's. */
#define SG_LARGEST(x)                                                                                                            \
    SG_UNROLL for (int mask_ = SG_LANES / 2; mask_ > 0; mask_ /= 2)                                                              \
    {                                                                                                                            \
        const float other_ = sg_from(x, SG_LANE ^ mask_);                                                                        \
        x = LARGER(x, other_);                                                                                                   \
    }
