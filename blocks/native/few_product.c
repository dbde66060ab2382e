/* A small-M GEMM: a few rows times a matrix in float32, or in int8 with a scale for each row of the matrix:
 *
 *     out_ro = scale_o sum_i x_ri w_oi
 *
 * Only the float32 sums are rounded. The matrix is read once for every BATCH rows of x.
 */
#include "few_product.h"

#define OUTS 4          /* rows of the matrix at once: v_sum4 adds them up */
#define BATCH (MR / 2)  /* rows of x at once: OUTS x BATCH sums and their operands fit into the registers */
#define SMALL (1 << 16) /* a matrix of at most so many numbers is too small for several threads */

INLINE void tile(const void *x, int64_t type, int64_t at, const Matrix *w, const int w_type, int64_t first, float *out,
                 const int rows, int add) {
    const int64_t real = least(OUTS, w->outs - first);
    int64_t row[OUTS];
    vf sum[BATCH][OUTS];
    for (int o = 0; o < OUTS; o++) row[o] = (first + least(o, real - 1)) * w->width; /* past the end, the last row again */
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < OUTS; o++) sum[r][o] = v_set(0.0f);
    for (int64_t i = 0; i < w->columns; i += VL) {
        vf weights[OUTS];
#pragma GCC unroll 4
        for (int o = 0; o < OUTS; o++) weights[o] = get(w->values, row[o] + i, w_type);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vf given = get(x, at + r * w->columns + i, type);
#pragma GCC unroll 4
            for (int o = 0; o < OUTS; o++) sum[r][o] = v_fma(given, weights[o], sum[r][o]);
        }
    }
    for (int r = 0; r < rows; r++) {
        float sums[OUTS];
        v_sum4(sum[r], sums);
        for (int o = 0; o < real; o++) {
            float *to = out + r * w->outs + first + o, found = sums[o];
            if (w_type == INT8) found *= one(w->scale, first + o, BFLOAT16);
            if (w->bias) found += w->bias[first + o];
            *to = add ? *to + found : found;
        }
    }
}

INLINE void outs_of(const void *x, int64_t type, const Matrix *w, const int w_type, int64_t first, float *out, int64_t rows,
                    int add) {
    for (int64_t r = 0, more; r < rows; r += more) {
        more = least(BATCH, rows - r);
        const int64_t at = r * w->columns;
        float *to = out + r * w->outs;
        /* The compiler knows the number of rows in each. */
        if (more == 1) tile(x, type, at, w, w_type, first, to, 1, add);
        else if (more == BATCH) tile(x, type, at, w, w_type, first, to, BATCH, add);
        else if (more == 2) tile(x, type, at, w, w_type, first, to, BATCH < 2 ? 1 : 2, add);
        else tile(x, type, at, w, w_type, first, to, BATCH < 3 ? 1 : 3, add);
    }
}

void few_product(const void *x, int64_t type, const Matrix *w, float *out, int64_t rows, int add, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads) if (threads > 1 && w->outs * w->columns > SMALL)
    for (int64_t first = 0; first < w->outs; first += OUTS) {
        if (w->type == INT8) outs_of(x, type, w, INT8, first, out, rows, add);
        else outs_of(x, type, w, FLOAT32, first, out, rows, add);
    }
}

PUBLIC int miniwin_few_product(const void *x, int64_t type, const Matrix *w, float *out, int64_t rows, int64_t threads) {
    few_product(x, type, w, out, rows, 0, threads);
    return 0;
}
