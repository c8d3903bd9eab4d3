/* SPDX-License-Identifier: MIT
 * dtype.h - storage types: sizes, names, and conversion to and from f32, one value and one row at a time. Portable C, exact, the
 * definition that every vector conversion is compared with.
 */
#ifndef HEED_DTYPE_H
#define HEED_DTYPE_H

#include "internal.h"

bool type_known(heed_type type);             /* one of HEED_F32 ... HEED_F8_E5M2 */
const char *type_name(heed_type type);       /* "f32", "q8_0", "f8_e4m3", ... */
bool type_from_name(const char *name, size_t length, heed_type *type);
int32_t type_block(heed_type type);          /* elements per block: 1, or 32 */
int32_t type_block_bytes(heed_type type);    /* bytes per block: the element's size, or 34, 18 */
bool type_is_block(heed_type type);
int64_t type_row_bytes(heed_type type, int64_t elements);
int32_t type_alignment(heed_type type);      /* of its storage: 4, 2, 1; block types 2 */
/* Bytes per stride unit: the element's size; 1 for block types, whose strides are given in bytes. */
int32_t type_stride_bytes(heed_type type);

float f16_to_f32(uint16_t x);
uint16_t f32_to_f16(float x);                /* nearest even; beyond the range infinity; NaN stays NaN */
float bf16_to_f32(uint16_t x);
uint16_t f32_to_bf16(float x);               /* nearest even, denormals kept */
float f8_e4m3_to_f32(uint8_t x);
uint8_t f32_to_f8_e4m3(float x);             /* saturates to 448; infinity and NaN become NaN */
float f8_e5m2_to_f32(uint8_t x);
uint8_t f32_to_f8_e5m2(float x);             /* finite saturates to 57344; infinity stays */

/* A row of n elements to f32. scale: of the row for i8 and f8 (1 where absent); ignored by the other types. */
void row_to_f32(heed_type type, const void *from, float scale, float *to, int32_t n);
void row_to_f64(heed_type type, const void *from, float scale, double *to, int32_t n); /* exact: scale * q in double */
/* The other way, by the rules of doc/semantics.md, section 3. For i8 and f8 *scale receives the row's d (f8: d = 1 when scale is NULL,
 * else max |x| / the type's maximum). Others leave it alone. */
void row_from_f32(heed_type type, const float *from, void *to, float *scale, int32_t n);
/* One output element in double, rounded once to the type (f32, f16, bf16): double rounding is avoided. */
void store_output(heed_type type, void *row, int32_t index, double value);

/* Locale-independent text of a number, shortest that reads back the same float; and the reverse. */
size_t text_of_float(float x, char *text, size_t capacity);
size_t text_of_double(double x, char *text, size_t capacity);
bool double_from_text(const char *text, size_t length, double *x);

#endif
