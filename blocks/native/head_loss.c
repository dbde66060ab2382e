/* The loss of the next token on AMX: logits, softmax, and the gradients of hidden states and head. It takes a chunk of
 * tokens at a time, so that logits stay in the processor's cache. Matrices are transposed: a token is a column.
 *
 *     Z = scale W H';  loss_t = log sum_v exp(Z_vt) - Z_yt;  G = softmax(Z) - onehot(y);  dH' = W' G;  dW = G H
 *
 * (' is transposed. dH and dW are the gradients of the sum of the losses, divided by scale.) The vocabulary is cut into
 * slices, which the threads share. First each slice computes exp2(logits - its highest logit) of each token, its powers,
 * and their sums. When the sums of all slices are known, each slice computes its share of the gradients.
 */
#include "numbers.h"

#include <stdlib.h>
#include <string.h>

/* Mirrored in head_loss.py. */
typedef struct {
    int64_t tokens, vocabulary, size, chunk, ignored, threads; /* T, V, C; tokens of a chunk; the target of no loss */
    const void *h, *w;      /* (T, C), (V, C), bfloat16, contiguous; V and C are multiples of 32 */
    const int64_t *targets; /* (T,) */
    float *losses;          /* (T,) */
    void *grad_h;           /* (T, C) bfloat16, or null */
    float *grad_w;          /* (V, C), or null */
    float scale;
} HeadLoss;

#ifdef __AMX_BF16__
#include "amx.h"

int omp_get_thread_num(void);
int omp_get_num_threads(void);

#define SLICE 256   /* of the vocabulary */
#define BLOCK 32    /* tokens whose logits for a slice are held at once */
#define SQUARE 512  /* numbers of a contiguous tile in bfloat16: 16 rows of 32, or 16 pairs of rows of 16 */

/* C += A B, or C = A B with `first`. C is two by two tiles of floats, `across` and `down` apart, ldc from row to row. A is
 * two rows of `steps` tiles, `a` numbers apart; B is two columns of `steps` tiles, `b` numbers apart. */
INLINE void tile_product(const bf *A, int64_t a, const bf *B, int64_t b, int64_t steps, float *C, int64_t ldc, int64_t across,
                         int64_t down, int first) {
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, C, ldc * 4);
        _tile_loadd(1, C + across, ldc * 4);
        _tile_loadd(2, C + down, ldc * 4);
        _tile_loadd(3, C + down + across, ldc * 4);
    }
    for (int64_t s = 0; s < steps; s++) {
        _tile_loadd(4, A + s * SQUARE, 64);
        _tile_loadd(6, B + s * SQUARE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, B + b + s * SQUARE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, A + a + s * SQUARE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, C, ldc * 4);
    _tile_stored(1, C + across, ldc * 4);
    _tile_stored(2, C + down, ldc * 4);
    _tile_stored(3, C + down + across, ldc * 4);
}

/* The memory of a call, in bytes from its start. */
typedef struct {
    int64_t slices, wide; /* wide: columns of a chunk, in whole blocks */
    int64_t w, w_turned, h_turned, h_zipped, powers, high, sums, near, chance, own, scores, zipped, sum, each, all;
} Layout;

/* Reserve so many bytes at *at, and move *at behind them, to a multiple of 64. */
static int64_t after(int64_t *at, int64_t bytes) {
    int64_t begin = *at;
    *at += (bytes + 63) / 64 * 64;
    return begin;
}

static Layout layout_of(const HeadLoss *c) {
    Layout l = {.slices = (c->vocabulary + SLICE - 1) / SLICE};
    int64_t at = 0;
    l.wide = (least(c->chunk, c->tokens) + BLOCK - 1) / BLOCK * BLOCK;
    l.w = after(&at, c->vocabulary * c->size * 2);           /* W, in tiles */
    l.w_turned = after(&at, l.slices * SLICE * c->size * 2); /* W', in tiles, slice by slice */
    l.h_turned = after(&at, c->size * l.wide * 2);           /* H', in pairs */
    l.h_zipped = after(&at, c->size * l.wide * 2);           /* H, in pairs */
    l.powers = after(&at, c->vocabulary * l.wide * 2);       /* exp2(Z - high of the slice), later G */
    l.high = after(&at, l.slices * l.wide * 4); /* a slice's highest logit of each token, later the factor of its powers */
    l.sums = after(&at, l.slices * l.wide * 4); /* a slice's sum of powers of each token */
    l.near = after(&at, l.wide * 4);            /* the target's logit */
    l.chance = after(&at, l.wide * 4);          /* the target's probability, less one */
    l.own = at;                                 /* each thread's own memory: */
    at = 0;
    l.scores = after(&at, SLICE * BLOCK * 4);
    l.zipped = after(&at, SLICE * l.wide * 2); /* G of a slice, in pairs */
    l.sum = after(&at, c->size * l.wide * 4);  /* dH', summed over the thread's slices */
    l.each = at;
    l.all = l.own + c->threads * l.each;
    return l;
}

/* Pack rows v .. v + 31 of W into tiles of W and of W'. */
static void pack_weights(const HeadLoss *c, const Layout *l, char *memory, int64_t v) {
    const int64_t slice = v / SLICE * SLICE, deep = least(SLICE, c->vocabulary - slice) / 32;
    bf *straight = (bf *)(memory + l->w) + v * c->size, *turned = (bf *)(memory + l->w_turned) + slice * c->size;
    for (int64_t half = 0; half < 2; half++)
        for (int64_t d = 0; d < c->size; d += 32) {
            vf square[TILE];
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) {
                square[i] = v_load((const float *)((const bf *)c->w + (v + half * TILE + i) * c->size + d));
                v_store((float *)(straight + half * TILE * c->size + d * TILE) + i * TILE, square[i]);
            }
            v_turn(square);
            bf *to = turned + (d / TILE * deep + (v - slice) / 32) * SQUARE + half * TILE;
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) {
                __m512i both = _mm512_castps_si512(square[i]);
                bf *row = to + i / 8 * deep * SQUARE + i % 8 * 64;
                _mm256_storeu_si256((__m256i *)row, _mm512_cvtepi32_epi16(both));
                _mm256_storeu_si256((__m256i *)(row + 32), _mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
            }
        }
}

static bf nothing[4096]; /* zeros in place of tokens that do not exist; WIDEST in head_loss.py */

/* Pack tokens at .. at + 31 of a chunk into tiles of H' and of H. first: the first token of the chunk. */
static void pack_tokens(const HeadLoss *c, const Layout *l, char *memory, int64_t first, int64_t at) {
    bf *rows[BLOCK], *zipped = (bf *)(memory + l->h_zipped) + at / 32 * SQUARE;
    for (int64_t i = 0; i < BLOCK; i++)
        rows[i] = first + at + i < c->tokens && at + i < c->chunk ? (bf *)c->h + (first + at + i) * c->size : nothing;
    for (int64_t i = 0; i < BLOCK; i += TILE)
        turn(rows + i, TILE, c->size, (bf *)(memory + l->h_turned) + (at + i) * c->size, TILE);
    for (int64_t d = 0; d < c->size; d += TILE)
        for (int64_t i = 0; i < TILE; i++) {
            __m256i even = _mm256_loadu_si256((const __m256i *)(rows[2 * i] + d));
            __m256i odd = _mm256_loadu_si256((const __m256i *)(rows[2 * i + 1] + d));
            _mm512_storeu_si512(zipped + d * l->wide + 32 * i, paired(even, odd));
        }
}

/* A slice's powers, their sums and its highest logits, for the tokens at .. at + BLOCK - 1 of a chunk. */
static void block_powers(const HeadLoss *c, const Layout *l, char *memory, char *own, int64_t slice, int64_t first, int64_t at) {
    const int64_t row = slice * SLICE, rows = least(SLICE, c->vocabulary - row), size = c->size;
    float *scores = (float *)(own + l->scores), *high = (float *)(memory + l->high) + slice * l->wide + at;
    float *sums = (float *)(memory + l->sums) + slice * l->wide + at;
    bf *powers = (bf *)(memory + l->powers) + row * l->wide + at * TILE;
    const vf factor = v_set(c->scale * LOG2E);
    vf highest[2] = {v_set(-INFINITY), v_set(-INFINITY)}, sum[2] = {v_set(0.0f), v_set(0.0f)};
    for (int64_t v = 0; v < rows; v += 2 * TILE)
        tile_product((bf *)(memory + l->w) + (row + v) * size, TILE * size, (bf *)(memory + l->h_turned) + at * size, TILE * size,
                     size / 32, scores + v * BLOCK, BLOCK, TILE, TILE * BLOCK, 1);
    for (int64_t v = 0; v < rows; v++)
        for (int i = 0; i < 2; i++) highest[i] = v_max(v_load(scores + v * BLOCK + i * VL) * factor, highest[i]);
    for (int64_t v = 0; v < rows; v++) {
        vf power[2];
        for (int i = 0; i < 2; i++) {
            power[i] = v_exp2(v_fma(v_load(scores + v * BLOCK + i * VL), factor, -highest[i]));
            sum[i] += power[i];
        }
        _mm512_storeu_si512(powers + v / TILE * TILE * l->wide + v % TILE * 32, (__m512i)_mm512_cvtne2ps_pbh(power[1], power[0]));
    }
    for (int i = 0; i < 2; i++) {
        v_store(high + i * VL, highest[i]);
        v_store(sums + i * VL, sum[i]);
    }
    for (int64_t t = 0; t < BLOCK && first + at + t < c->tokens; t++) {
        int64_t y = c->targets[first + at + t] - row;
        if (y >= 0 && y < rows) ((float *)(memory + l->near))[at + t] = scores[y * BLOCK + t] * c->scale * LOG2E;
    }
}

/* The losses of VL tokens, and the factor for each slice's powers that makes them probabilities. */
static void finish_tokens(const HeadLoss *c, const Layout *l, char *memory, int64_t first, int64_t at) {
    float *high = (float *)(memory + l->high) + at, *sums = (float *)(memory + l->sums) + at;
    vf highest = v_set(-INFINITY), sum = v_set(0.0f);
    float top[VL], whole[VL], counted[VL];
    for (int64_t s = 0; s < l->slices; s++) highest = v_max(v_load(high + s * l->wide), highest);
    for (int64_t s = 0; s < l->slices; s++)
        sum = v_fma(v_exp2(v_load(high + s * l->wide) - highest), v_load(sums + s * l->wide), sum);
    v_store(top, highest);
    v_store(whole, sum);
    for (int64_t i = 0; i < VL; i++) {
        int64_t t = first + at + i, real = t < c->tokens && at + i < c->chunk;
        counted[i] = real && c->targets[t] != c->ignored;
        float gap = ((float *)(memory + l->near))[at + i] - top[i];
        if (real) c->losses[t] = counted[i] ? (log2f(whole[i]) - gap) * LN2 : 0.0f;
        ((float *)(memory + l->chance))[at + i] = exp2f(gap) / whole[i] - 1.0f;
    }
    vf share = v_load(counted) / sum;
    for (int64_t s = 0; s < l->slices; s++)
        v_store(high + s * l->wide, v_exp2(v_load(high + s * l->wide) - highest) * share);
}

/* G of a slice from its powers: in their place, and in pairs into `zipped`. */
static void slice_gradient(const HeadLoss *c, const Layout *l, char *memory, bf *zipped, int64_t slice, int64_t first) {
    const int64_t row = slice * SLICE, rows = least(SLICE, c->vocabulary - row);
    const float *factor = (float *)(memory + l->high) + slice * l->wide, *chance = (float *)(memory + l->chance);
    bf *powers = (bf *)(memory + l->powers) + row * l->wide;
    for (int64_t v = 0; v < rows; v += TILE)
        for (int64_t t = 0; t < l->wide; t += 32) {
            const vf low = v_load(factor + t), high = v_load(factor + t + VL);
            bf *tile = powers + v * l->wide + t * TILE, *to = zipped + t * rows + v * TILE;
            for (int64_t r = 0; r < TILE; r += 2) {
                __m512i made[2];
#pragma GCC unroll 2
                for (int i = 0; i < 2; i++) {
                    bf *at = tile + (r + i) * 32;
                    made[i] = (__m512i)_mm512_cvtne2ps_pbh(v_of_bf16(at + VL) * high, v_of_bf16(at) * low);
                    _mm512_storeu_si512(at, made[i]);
                }
                _mm512_storeu_si512(to + r * TILE, paired(_mm512_castsi512_si256(made[0]), _mm512_castsi512_si256(made[1])));
                _mm512_storeu_si512(to + (rows + r) * TILE,
                                    paired(_mm512_extracti64x4_epi64(made[0], 1), _mm512_extracti64x4_epi64(made[1], 1)));
            }
        }
    for (int64_t t = 0; t < least(c->chunk, c->tokens - first); t++) {
        int64_t y = c->targets[first + t] - row;
        if (y < 0 || y >= rows || c->targets[first + t] == c->ignored) continue;
        bf value[VL];
        v_to_bf16(value, v_set(chance[t]));
        powers[y / TILE * TILE * l->wide + t / 32 * SQUARE + y % TILE * 32 + t % 32] = value[0];
        zipped[t / TILE * TILE * rows + y / 2 * 32 + t % TILE * 2 + y % 2] = value[0];
    }
}

/* A slice's share of the gradients: its rows of dW, and its part of dH'. */
static void slice_products(const HeadLoss *c, const Layout *l, char *memory, char *own, int64_t slice, int64_t first) {
    const int64_t row = slice * SLICE, rows = least(SLICE, c->vocabulary - row), size = c->size, wide = l->wide;
    const bf *powers = (bf *)(memory + l->powers) + row * wide, *zipped = (bf *)(own + l->zipped);
    const bf *w = (bf *)(memory + l->w_turned) + row * size, *h = (bf *)(memory + l->h_zipped);
    float *sum = (float *)(own + l->sum);
    for (int64_t d = 0; c->grad_w && d < size; d += 32)
        for (int64_t v = 0; v < rows; v += 32)
            tile_product(powers + v * wide, TILE * wide, h + d * wide, TILE * wide, wide / 32, c->grad_w + (row + v) * size + d,
                         size, TILE, TILE * size, first == 0);
    for (int64_t t = 0; c->grad_h && t < wide; t += 32)
        for (int64_t d = 0; d < size; d += 32)
            tile_product(w + d * rows, TILE * rows, zipped + t * rows, TILE * rows, rows / 32, sum + t * size + d * TILE, TILE,
                         TILE * size, TILE * TILE, 0);
}

/* dH of VL tokens: the sum over the threads. */
static void sum_tokens(const HeadLoss *c, const Layout *l, const char *memory, int64_t team, int64_t first, int64_t at) {
    for (int64_t d = 0; d < c->size; d += VL) {
        vf square[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            square[i] = v_set(0.0f);
            for (int64_t n = 0; n < team; n++)
                square[i] += v_load((float *)(memory + l->own + n * l->each + l->sum) + at * c->size + (d + i) * TILE);
        }
        v_turn(square);
        for (int64_t i = 0; i < VL && first + at + i < c->tokens && at + i < c->chunk; i++)
            v_to_bf16((bf *)c->grad_h + (first + at + i) * c->size + d, square[i]);
    }
}

PUBLIC int miniwin_head_loss(const HeadLoss *call) {
    const HeadLoss c = *call;
    const Layout l = layout_of(&c);
    char *memory = aligned_alloc(64, (size_t)l.all);
    if (!memory) return 1;
#pragma omp parallel num_threads((int)c.threads) if (c.threads > 1)
    {
        const int64_t team = omp_get_num_threads();
        char *own = memory + l.own + omp_get_thread_num() * l.each;
        tiles_on();
#pragma omp for schedule(static)
        for (int64_t v = 0; v < c.vocabulary; v += 32) pack_weights(&c, &l, memory, v);
        for (int64_t first = 0; first < c.tokens; first += c.chunk) {
            memset(own + l.sum, 0, (size_t)(c.size * l.wide) * 4);
#pragma omp for schedule(static)
            for (int64_t t = 0; t < l.wide; t += BLOCK) pack_tokens(&c, &l, memory, first, t);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < l.slices * (l.wide / BLOCK); i++)
                block_powers(&c, &l, memory, own, i / (l.wide / BLOCK), first, i % (l.wide / BLOCK) * BLOCK);
#pragma omp for schedule(static)
            for (int64_t t = 0; t < l.wide; t += VL) finish_tokens(&c, &l, memory, first, t);
            if (!c.grad_h && !c.grad_w) continue;
#pragma omp for schedule(static)
            for (int64_t s = 0; s < l.slices; s++) {
                slice_gradient(&c, &l, memory, (bf *)(own + l.zipped), s, first);
                slice_products(&c, &l, memory, own, s, first);
            }
            if (!c.grad_h) continue;
#pragma omp for schedule(static)
            for (int64_t t = 0; t < l.wide; t += VL) sum_tokens(&c, &l, memory, team, first, t);
        }
        _tile_release();
    }
    free(memory);
    return 0;
}
#endif
