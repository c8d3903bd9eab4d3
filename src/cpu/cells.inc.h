/* SPDX-License-Identifier: MIT
 * cells.inc.h - template words for products cell by cell. A cell is 32 bits: one float (CELL 1, here), or two bf16 that the machine multiplies and
 * adds at once (CELL 2, simd_avx512bf16.h). vf holds VW cells.
 */
#ifndef HEED_CELLS_INC_H
#define HEED_CELLS_INC_H

#ifndef CELL
#define CELL 1
/* acc + x y */
INLINE vf vmac(vf acc, vf x, vf y) { return vfma(y, x, acc); }
/* The same for weights p and values v, where a weight of -0 marks a hidden key: it takes no part. */
INLINE vf vmac_seen(vf acc, vf p, vf v) { return vselect(vis_minus_zero(p), acc, vfma(v, p, acc)); }
/* A weight as it meets a value. */
INLINE vf vround(vf p) { return p; }
#endif

/* n elements in cells. */
static inline int cells_of(int n) { return (n + CELL - 1) / CELL; }
#endif
