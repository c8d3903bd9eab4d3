/* SPDX-License-Identifier: MIT
 * probe_problems.c - small problems that between them need everything a row can be asked for: what a program that serves every problem has to
 * get right before it is believed. A program that is compiled for one problem is tried with that one (probe_case.c).
 */
#include "probe_case.h"

/* In the words of heed_desc_parse(). Every storage type as q, k, v and o, every flag, every stage of the scores, heads in groups, dimensions that
 * are no multiple of anything, the largest. */
static const char *const texts[] = {
    "hq2 d32 f32 lse",
    "hq4 hk2 d20 dv9 f16 o=f32 causal wl=5 alibi lse rope=8 ropeoff=4 keysums",
    "hq3 hk1 d7 bf16 wl=3 wr=2 softcap=4 mask=bits bias=bf16 biasfirst lse lse2 rope=6",
    "hq4 hk4 d64 f16 k=q8_0 v=q4_0 o=f16 causal sinks lse lsenosink page=16 rope=32 ropeil",
    "hq6 hk2 d32 bf16 k=q4_0 v=q8_0 o=f32 mask=bool bias=f32 scores=3 lse keysums",
    "hq2 hk1 d33 dv17 f32 k=i8 v=f8_e4m3 o=bf16 keyrange sinks lse lse2 keysums sumheads page=5 rope=16 ropeoff=1 ropeil",
    "hq2 hk2 d48 dv40 f32 k=f8_e5m2 v=i8 o=f16 bias=f16 softcap=2 scores=1 scale=0.3",
    "hq2 hk1 d24 f8_e4m3 k=f8_e4m3 v=f8_e5m2 o=f32 causal alibi scores=2 lse",
    "hq1 d40 f8_e5m2 k=f16 v=bf16 o=f16 scores=0 topleft causal wr=1",
    "hq2 d16 dv160 f16 k=bf16 v=f16 o=f32 causal lse rope=16",
    "hq1 d1024 f32 k=q8_0 v=i8 causal sinks lse rope=512 ropeoff=3",
    NULL};

/* Types, and what heed_merge refuses. */
static bool fits(const struct kernel_row *row, const struct problem *p)
{
    if ((row->kinds & KIND_BIT(KIND_MERGE)) && (p->flags & HEED_LSE_WITHOUT_SINK)) return false;
    if ((row->kinds & KIND_BIT(KIND_SCORES)) && !(p->flags & (HEED_WRITE_SCORES | HEED_WRITE_KEY_SUMS))) return false;
    return (row->q_types >> p->q_type & 1) && (row->k_types >> p->k_type & 1) && (row->v_types >> p->v_type & 1) &&
           (row->o_types >> p->o_type & 1);
}

heed_status probe_problem(const struct cl_device *device, const struct kernel_row *row, const uint64_t hash[2], int n,
                          struct problem *problem, const char **text, bool *served)
{
    heed_desc desc;
    uint64_t own[2];
    *served = false;
    *text = texts[n];
    if (!texts[n]) return HEED_OK;
    heed_status status = heed_desc_parse(texts[n], &desc);
    if (status == HEED_OK) status = problem_from_desc(&desc, problem);
    if (status == HEED_OK) status = cl_program_hash(device, row, problem, own);
    *served = status == HEED_OK && own[0] == hash[0] && own[1] == hash[1] && fits(row, problem);
    return status;
}
