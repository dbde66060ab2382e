/* A small-M GEMM: a few rows times a matrix, as in decoding. */
#ifndef MINIWIN_FEW_PRODUCT_H
#define MINIWIN_FEW_PRODUCT_H

#include "numbers.h"

/* A matrix (outs, columns), `width` numbers from row to row, in float32, or in int8 with a bfloat16 scale for each row.
 * Columns are a multiple of VL. Mirrored in step.py. */
typedef struct {
    const void *values;
    const uint16_t *scale;
    const float *bias; /* or null */
    int64_t type, outs, columns, width;
} Matrix;

/* out (rows, outs) = x (rows, columns) W^T + bias; with `add`, out += that. Sums in float32. */
void few_product(const void *x, int64_t type, const Matrix *w, float *out, int64_t rows, int add, int64_t threads);

#endif
