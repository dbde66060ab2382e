/* A few rows times a matrix that is stored in int8 with a scale for each of its rows, as a decoding step has them:
 *
 *     out_ro = scale_o sum_i x_ri w_oi
 *
 * in float32: nothing is rounded but the sums. The matrix is read once for every BATCH rows of x.
 */
#include "numbers.h"

#define OUTS 4         /* rows of the matrix at once */
#define BATCH (MR / 2) /* rows of x at once: OUTS x BATCH sums and what feeds them fit into the registers */
#define SMALL (1 << 16) /* numbers of a matrix that is too small for several threads */

INLINE void tile(const void *x, int64_t type, int64_t at, const int8_t *w, int64_t width, const uint16_t *scale, float *out,
                 int64_t columns, int64_t outs, const int64_t real, const int rows) {
    vf sum[BATCH][OUTS];
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < OUTS; o++) sum[r][o] = v_set(0.0f);
    for (int64_t i = 0; i < columns; i += VL) {
        vf weights[OUTS];
#pragma GCC unroll 4
        for (int o = 0; o < OUTS; o++) weights[o] = v_of_int8(w + o * width + i);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vf given = get(x, at + r * columns + i, type);
#pragma GCC unroll 4
            for (int o = 0; o < OUTS; o++) sum[r][o] = v_fma(given, weights[o], sum[r][o]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < real; o++) out[r * outs + o] = v_sum(sum[r][o]) * one(scale, o, BFLOAT16);
}

/* x (rows, columns) without gaps, columns a multiple of VL; w (outs or more, a multiple of OUTS; width or more), zeros
 * from the last real column to `columns`; scale (outs,) bfloat16; out (rows, outs) float32. */
PUBLIC int miniwin_int8_product(const void *x, int64_t type, const int8_t *w, const uint16_t *scale, float *out,
                                int64_t rows, int64_t outs, int64_t columns, int64_t width, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads((int)threads) if (threads > 1 && outs * columns > SMALL)
    for (int64_t o = 0; o < outs; o += OUTS) {
        const int64_t real = least(OUTS, outs - o);
        int64_t r = 0;
        for (; r + BATCH <= rows; r += BATCH)
            tile(x, type, r * columns, w + o * width, width, scale + o, out + r * outs + o, columns, outs, real, BATCH);
        for (; r < rows; r++)
            tile(x, type, r * columns, w + o * width, width, scale + o, out + r * outs + o, columns, outs, real, 1);
    }
    return 0;
}
