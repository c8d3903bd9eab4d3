/* SPDX-License-Identifier: MIT
 * cells.inc.h - template words for products cell by cell. A cell is 32 bits: one float (CELL 1, here), or two bf16 that the machine multiplies and
 * adds at once (CELL 2: simd_avx512bf16.h, simd_neonbf16.h). vf holds VW cells.
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

#ifndef VEC_BY_ELEMENT
/* One cell for all lanes, and acc + x y with it. */
typedef vf vcell;
INLINE vcell vcell_of(float y) { return vset1(y); }
INLINE vf vmac_cell(vf acc, vf x, vcell y) { return vmac(acc, x, y); }
#endif

/* How the machine adds the products of a cell: internal.h, struct arithmetic. */
#ifndef CELL_TOGETHER
#define CELL_TOGETHER 1
#define CELL_ROUNDINGS 1
#endif

/* Does the machine multiply four by four along a side, and prefill so: panel_quads.inc.h. */
#ifndef CELL_QUADS
#define CELL_QUADS 0
#endif

/* Does it multiply tiles of sixteen rows: panel_tiles.inc.h. */
#ifndef CELL_TILES
#define CELL_TILES 0
INLINE void vtiles_begin(void) {}
INLINE void vtiles_end(void) {}
#endif

/* n elements in cells. */
static inline int cells_of(int n) { return (n + CELL - 1) / CELL; }
#endif
