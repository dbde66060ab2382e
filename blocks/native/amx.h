/* Products of bfloat16 on AMX: tiles of 16 x 32 by 32 x 16 numbers, whose products sum up in float32.
 *
 * The right-hand side of such a product comes in pairs: its rows 2i and 2i + 1 are interleaved, number by number.
 */
#ifndef MINIWIN_AMX_H
#define MINIWIN_AMX_H

#include "numbers.h"

typedef uint16_t bf;

#define TILE 16                /* rows of a tile register; its rows are 64 bytes */
#define PAIRS(n) ((n) / 2)

/* Eight tiles of 16 rows of 64 bytes. A constant: of a local variable GCC 12 believes only the first bytes to be read. */
static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed)) TILES = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

static void tiles_on(void) { _tile_loadconfig(&TILES); }

/* 16 pairs, from 16 numbers of each of two rows. */
INLINE __m512i paired(__m256i even, __m256i odd) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

/* Transpose rows of pairs: (count, dim / 2) -> (dim / 2, count), `pitch` pairs from row to row of the result. */
static void turn(bf *const *rows, int64_t count, int64_t dim, bf *into, int64_t pitch) {
    for (int64_t r = 0; r < count; r += TILE)
        for (int64_t d = 0; d < PAIRS(dim); d += TILE) {
            vf square[TILE];
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) square[i] = v_load((const float *)rows[r + i] + d);
            v_turn(square);
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) v_store((float *)into + (d + i) * pitch + r, square[i]);
        }
}

#endif
