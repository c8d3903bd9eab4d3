/* SPDX-License-Identifier: MIT
 * prefill_outputs.inc.h - template: what is left of a panel's o, m and l when all keys were seen: o and lse, with the sink; or, of a chunk of the keys, a
 * partial row of the workspace.
 */
#ifndef HEED_PREFILL_OUTPUTS_INC_H
#define HEED_PREFILL_OUTPUTS_INC_H

#include "merge.inc.h"
#include "prefill_terms.inc.h"

/* With a sink z: n = max(m, z), factor = e^(m - n), l' = l factor + e^(z - n); without: 1, l. A row that saw nothing divides 0 by 1. */
static void add_sinks(const struct prefill_pass *pass, const struct panel *a, int c, vf *m, vf *l, vf *factor)
{
    float z[VW];
    *m = vload(a->m + c);
    *l = vload(a->l + c);
    *factor = vset1(1);
    if (!(pass->p->flags & HEED_SINKS) || MUTANT(cpu_prefill_no_sink)) return;
    for (int r = 0; r < VW; r++) z[r] = c + r < a->rows ? ((const float *)pass->call->sinks.data)[pass->head[a->first + c + r]] : 0;
    const vf sink = vload(z), n = vmax(sink, *m), shift = vmax(n, vset1(-FLT_MAX));
    *factor = vexp(vsub(*m, shift));
    *l = vadd(vmul(*l, *factor), vexp(vsub(sink, shift)));
    *m = n;
}

static void finish_vector(const struct prefill_pass *pass, const struct panel *a, int c)
{
    const struct problem *p = pass->p;
    const int count = min_int(VW, a->rows - c);
    unsigned char *rows[VW] = {0};
    float lse_m[VW], lse_l[VW], all_m[VW], all_l[VW];
    vf m, l, factor;
    add_sinks(pass, a, c, &m, &l, &factor);
    vstore(all_m, m);
    vstore(all_l, l);
    if (p->flags & HEED_LSE_WITHOUT_SINK) {
        vstore(lse_m, vload(a->m + c));
        vstore(lse_l, vload(a->l + c));
    } else {
        vstore(lse_m, m);
        vstore(lse_l, l);
    }
    for (int r = 0; r < count; r++) {
        const int n = a->first + c + r;
        rows[r] = query_row(&pass->call->o, pass->s, pass->b, pass->head[n], pass->query[n]);
        if (p->flags & HEED_WRITE_LSE)
            *(float *)query_row(&pass->call->lse, pass->s, pass->b, pass->head[n], pass->query[n]) = lse_of(p, lse_m[r], lse_l[r]);
        keep_sums(pass->call, pass->s, pass->head[n], pass->query[n], all_m[r], all_l[r]);
    }
    l = vselect(veq(l, vset1(0)), vset1(1), l);
    if (a->few)
        scale_outputs(p->o_type, rows, count, p->v_head_dim, a->o, a->few, factor, l);
    else
        transpose_outputs(p->o_type, rows, count, p->v_head_dim, a->o + c, a->width, CELL_TILES ? vdiv(factor, l) : factor, l);
}

/* VW rows of an item that has some of the keys only: o as it is, m and l into the workspace, where merge_parts_rows() finds them. */
static void leave_vector(const struct prefill_pass *pass, const struct panel *a, int64_t part, int c)
{
    const int count = min_int(VW, a->rows - c);
    const vf one = vset1(1);
    unsigned char *rows[VW] = {0};
    float m[VW], l[VW];
    vstore(m, vload(a->m + c));
    vstore(l, vload(a->l + c));
    for (int r = 0; r < count; r++) {
        float *sums = part_sums(pass->call, part + a->first + c + r);
        rows[r] = (unsigned char *)part_values(pass->call, part + a->first + c + r);
        sums[0] = m[r];
        sums[1] = l[r];
    }
    if (a->few)
        scale_outputs(HEED_F32, rows, count, pass->p->v_head_dim, a->o, a->few, one, one);
    else
        transpose_outputs(HEED_F32, rows, count, pass->p->v_head_dim, a->o + c, a->width, one, one);
}

#endif
