/* Tiles of attention in bfloat16 on AMX.
 *
 * The backward computes transposed scores, a row for each key, so that P' and dS' can be left-hand sides as they are:
 *
 *     S' = K Q';  dP' = V dO';  dV += P' dO;  dK += dS' Q;  dQ' += K' dS'        (' is transposed)
 */
#include "amx.h"

#include <sys/syscall.h>
#include <unistd.h>

#define WIDE (ROWS_AMX + 16)   /* numbers from row to row of a matrix with a column for each query */

/* Ask the operating system, once per process, for permission to use AMX. 0: granted. */
PUBLIC int miniwin_start(void) { return syscall(SYS_arch_prctl, 0x1023, 18) != 0; }

/* Interleave rows 2i and 2i + 1: (count, dim) -> (count / 2, dim) pairs. */
static void zip(bf *const *rows, int64_t count, int64_t dim, bf *into) {
    for (int64_t r = 0; r < count; r += 2)
        for (int64_t d = 0; d < dim; d += TILE) {
            __m256i even = _mm256_loadu_si256((const __m256i *)(rows[r] + d));
            __m256i odd = _mm256_loadu_si256((const __m256i *)(rows[r + 1] + d));
            _mm512_storeu_si512((float *)into + PAIRS(r) * dim + d, paired(even, odd));
        }
}

/* From transposed pairs (dim / 2, count) to transposed rows (dim, count). */
static void unzip(const bf *pairs, int64_t dim, int64_t count, bf *into) {
    for (int64_t d = 0; d < dim; d += 2)
        for (int64_t r = 0; r < count; r += TILE) {
            __m512i both = _mm512_loadu_si512((const float *)pairs + PAIRS(d) * count + r);
            _mm256_storeu_si256((__m256i *)(into + d * count + r), _mm512_cvtepi32_epi16(both));
            _mm256_storeu_si256((__m256i *)(into + (d + 1) * count + r), _mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
        }
}

static bf nothing[256]; /* a row of zeros, in place of keys and queries that do not exist */

/* Pointers to the rows of a block of keys or values. */
static void rows_of_block(const Call *c, int values, int64_t b, int64_t h, int64_t first, bf **rows) {
    const int64_t *stride = values ? c->v_stride : c->k_stride;
    bf *base = (bf *)(values ? c->v : c->k) + b * stride[0] + first * stride[1] + h * stride[2];
    for (int64_t j = 0; j < KEYS; j++) rows[j] = first + j < c->keys ? base + j * stride[1] : nothing;
}

/* Pointers to a tile's rows of a tensor (B, N, H, D); from the last row to `padded`, zeros. */
static void rows_of_tile(const Tile *t, const void *from, const int64_t *stride, int64_t padded, bf **rows) {
    for (int64_t r = 0; r < padded; r++)
        rows[r] = r < t->rows ? (bf *)from + t->b * stride[0] + t->token[r] * stride[1] + t->head[r] * stride[2] : nothing;
}

static void copy_rows(bf *const *rows, int64_t count, int64_t dim, bf *into) {
    for (int64_t r = 0; r < count; r++) memcpy(into + r * dim, rows[r], (size_t)dim * 2);
}

/* C (32 x 32 floats) = A (32 x dim) times B, dim x 32 numbers in pairs; ldb in pairs. */
INLINE void square_product(const bf *A, int64_t lda, const bf *B, int64_t ldb, int64_t dim, float *C, int64_t ldc) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t d = 0; d < dim; d += 2 * TILE) {
        _tile_loadd(4, A + d, lda * 2);
        _tile_loadd(5, A + TILE * lda + d, lda * 2);
        _tile_loadd(6, B + d * ldb, ldb * 4);
        _tile_loadd(7, B + d * ldb + 2 * TILE, ldb * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, C, ldc * 4);
    _tile_stored(1, C + TILE, ldc * 4);
    _tile_stored(2, C + TILE * ldc, ldc * 4);
    _tile_stored(3, C + TILE * ldc + TILE, ldc * 4);
}

/* C (16 x `tiles` * 16 floats) += A (16 x depth) times B in pairs; ldb in pairs. tiles: 1 to 4. */
INLINE void row_product(const bf *A, int64_t lda, const bf *B, int64_t ldb, int64_t depth, float *C, int64_t ldc, int tiles) {
    _tile_loadd(0, C, ldc * 4);
    if (tiles > 1) _tile_loadd(1, C + TILE, ldc * 4);
    if (tiles > 2) _tile_loadd(2, C + 2 * TILE, ldc * 4);
    if (tiles > 3) _tile_loadd(3, C + 3 * TILE, ldc * 4);
    for (int64_t d = 0; d < depth; d += 2 * TILE) {
        _tile_loadd(4, A + d, lda * 2);
        _tile_loadd(5, B + d * ldb, ldb * 4);
        _tile_dpbf16ps(0, 4, 5);
        if (tiles > 1) {
            _tile_loadd(6, B + d * ldb + 2 * TILE, ldb * 4);
            _tile_dpbf16ps(1, 4, 6);
        }
        if (tiles > 2) {
            _tile_loadd(7, B + d * ldb + 4 * TILE, ldb * 4);
            _tile_dpbf16ps(2, 4, 7);
        }
        if (tiles > 3) {
            _tile_loadd(5, B + d * ldb + 6 * TILE, ldb * 4);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    _tile_stored(0, C, ldc * 4);
    if (tiles > 1) _tile_stored(1, C + TILE, ldc * 4);
    if (tiles > 2) _tile_stored(2, C + 2 * TILE, ldc * 4);
    if (tiles > 3) _tile_stored(3, C + 3 * TILE, ldc * 4);
}

/* The same for C of any width, a multiple of 32. */
INLINE void wide_product(const bf *A, int64_t lda, const bf *B, int64_t ldb, int64_t depth, float *C, int64_t ldc, int64_t width) {
    int64_t j = 0;
    for (; j + 4 * TILE <= width; j += 4 * TILE) row_product(A, lda, B + 2 * j, ldb, depth, C + j, ldc, 4);
    if (j < width) row_product(A, lda, B + 2 * j, ldb, depth, C + j, ldc, 2);
}

/* Whether AMX takes a call: bfloat16 throughout, heads of a multiple of 32 channels, and more than a few rows. */
static int amx_takes(const Call *c) {
    int64_t rows = c->queries * (c->heads / c->kv_heads);
    return c->q_type == BFLOAT16 && c->kv_type == BFLOAT16 && c->dim % (2 * TILE) == 0 && rows > FEW;
}

/* ---- forward ---- */

#define AMX_FORWARD_PARTS 1    /* blocks of KEYS x D floats in a slot: keys and values, each half as wide */
static int64_t amx_forward_floats(int64_t dim) { return TALL * (dim / 2 + PITCH / 2); }

static void amx_forward_tile(const Tile *t, int64_t low, int64_t high, Ring *ring, Sums *s, float *memory) {
    const Call *c = t->call;
    const int64_t dim = c->dim, padded = (t->rows + 2 * TILE - 1) / (2 * TILE) * (2 * TILE);
    bf *q = (bf *)memory, *weights = q + TALL * dim, *rows[TALL];
    const vf scale = v_set(c->scale * LOG2E);
    int64_t begin, end;
    rows_of_tile(t, c->q, c->q_stride, padded, rows);
    copy_rows(rows, padded, dim, q);
    sight(t, t->first, t->token[t->rows - 1], low, high, &begin, &end);
    for (int64_t base = begin / KEYS * KEYS; base < end; base += SPAN) {
        const int64_t stop = least(base + SPAN, end);
        for (int64_t block = base; block < stop; block += KEYS) {
            int missing;
            bf *turned = (bf *)slot(ring, block / KEYS, &missing), *values = turned + dim * KEYS;
            if (missing) {
                rows_of_block(c, 0, t->b, t->h, block, rows);
                turn(rows, KEYS, dim, turned, KEYS);
                rows_of_block(c, 1, t->b, t->h, block, rows);
                zip(rows, KEYS, dim, values);
            }
            for (int64_t r = 0; r < padded; r += 2 * TILE) {
                int64_t from, to;
                sight(t, t->token[r], t->token[r + 2 * TILE - 1], most(block, low), least(block + KEYS, high), &from, &to);
                for (int64_t j = (from - block) / (2 * TILE) * (2 * TILE); from < to && j < to - block; j += 2 * TILE)
                    square_product(q + r * dim, dim, turned + 2 * j, KEYS, dim, s->scores + r * PITCH + block - base + j, PITCH);
            }
        }
        for (int64_t r = 0; r < t->rows; r++) {
            int64_t from, to, begins, ends, g = r / TILE * TILE;
            sight(t, t->token[g], t->token[g + TILE - 1], most(base, low), stop, &begins, &ends);
            sight(t, t->token[r], t->token[r], most(base, low), stop, &from, &to);
            if (begins >= ends) continue;
            float *row = s->scores + r * PITCH;
            bf *narrowed = weights + r * PITCH;
            int64_t left = (begins - base) / (2 * TILE) * (2 * TILE), right = (ends - base + 2 * TILE - 1) / (2 * TILE) * (2 * TILE);
            from = least(most(from - base, left), right);
            to = most(least(to - base, right), from);
            for (int64_t j = left; j < from; j++) row[j] = -INFINITY;
            for (int64_t j = to; j < right; j++) row[j] = -INFINITY;
            vf highest = v_set(s->high[r]);
            for (int64_t j = left; j < right; j += VL) highest = v_max(v_load(row + j) * scale, highest);
            float now = v_highest(highest);
            if (now == -INFINITY) {
                for (int64_t j = left; j < right; j += VL) v_to_bf16(narrowed + j, v_set(0.0f));
                continue;
            }
            vf sum = v_set(0.0f), shift = v_set(-now);
            for (int64_t j = left; j < right; j += VL) {
                vf p = v_exp2(v_fma(v_load(row + j), scale, shift));
                v_to_bf16(narrowed + j, p);
                sum += p;
            }
            add_keys(s, r, now, v_sum(sum), dim);
        }
        for (int64_t r = 0; r < t->rows; r += TILE) {
            int64_t begins, ends;
            sight(t, t->token[r], t->token[r + TILE - 1], most(base, low), stop, &begins, &ends);
            for (int64_t block = begins / KEYS * KEYS; block < ends; block += KEYS) {
                int missing;
                bf *values = (bf *)slot(ring, block / KEYS, &missing) + dim * KEYS;
                int64_t left = most(begins - block, 0) / (2 * TILE) * (2 * TILE), right = least(ends - block, KEYS);
                right = (right + 2 * TILE - 1) / (2 * TILE) * (2 * TILE);
                wide_product(weights + r * PITCH + block - base + left, PITCH, values + left * dim, dim, right - left,
                             s->o + r * dim, dim, dim);
            }
        }
    }
}

/* ---- backward ---- */

#define AMX_BACKWARD_PARTS 2 /* blocks of KEYS x D floats in a slot: keys, values, transposed keys, room to transpose */
static int64_t amx_backward_floats(int64_t dim) {
    return 4 * ROWS_AMX * dim / 2 + WIDE * dim + 2 * KEYS * WIDE + 3 * KEYS * WIDE / 2 + 2 * ROWS_AMX + 2 * KEYS * dim;
}

static void amx_backward_tile(const Tile *t, Ring *ring, float *memory, const Sink *sink) {
    const Call *c = t->call;
    const int64_t dim = c->dim, padded = (t->rows + 2 * TILE - 1) / (2 * TILE) * (2 * TILE);
    const int64_t whole[3] = {c->queries * c->heads * dim, c->heads * dim, dim};
    float *grad_q = memory, *scores = grad_q + WIDE * dim, *slopes = scores + KEYS * WIDE, *lse = slopes + KEYS * WIDE;
    float *delta = lse + ROWS_AMX, *spare = delta + ROWS_AMX;
    bf *weights = (bf *)(spare + 2 * KEYS * dim), *narrowed = weights + KEYS * WIDE, *zipped = narrowed + KEYS * WIDE;
    bf *q_turned = zipped + KEYS * WIDE, *q_zipped = q_turned + ROWS_AMX * dim;
    bf *g_turned = q_zipped + ROWS_AMX * dim, *g_zipped = g_turned + ROWS_AMX * dim;
    bf *rows[TALL];
    const vf scale = v_set(c->scale), scale2 = v_set(c->scale * LOG2E);
    int64_t begin, end;
    rows_of_tile(t, c->q, c->q_stride, padded, rows);
    turn(rows, padded, dim, q_turned, ROWS_AMX);
    zip(rows, padded, dim, q_zipped);
    rows_of_tile(t, c->grad, whole, padded, rows);
    turn(rows, padded, dim, g_turned, ROWS_AMX);
    zip(rows, padded, dim, g_zipped);
    memset(grad_q, 0, (size_t)(WIDE * dim) * 4);
    for (int64_t r = 0; r < padded; r++) {
        vf sum = v_set(0.0f);
        int64_t at = r < t->rows ? place(c, t->b, t->token[r], t->head[r]) : 0;
        for (int64_t d = 0; d < dim; d += VL) sum = v_fma(v_of_bf16((bf *)c->out + at + d), v_of_bf16(rows[r] + d), sum);
        delta[r] = v_sum(sum);
        lse[r] = r < t->rows ? c->lse[at / dim] * LOG2E : 0.0f;
    }
    sight(t, t->first, t->token[t->rows - 1], 0, c->keys, &begin, &end);
    for (int64_t block = begin / KEYS * KEYS; block < end; block += KEYS) {
        int missing;
        bf *keys = (bf *)slot(ring, block / KEYS, &missing), *values = keys + dim * KEYS, *turned = values + dim * KEYS;
        if (missing) {
            rows_of_block(c, 0, t->b, t->h, block, rows);
            copy_rows(rows, KEYS, dim, keys);
            turn(rows, KEYS, dim, turned + dim * KEYS, KEYS);
            unzip(turned + dim * KEYS, dim, KEYS, turned);
            rows_of_block(c, 1, t->b, t->h, block, rows);
            copy_rows(rows, KEYS, dim, values);
        }
        /* The rows whose tokens see some key of this block. */
        int64_t first = most(block - t->offset, t->first);
        int64_t last = least(block + KEYS - 1 + c->window - t->offset, t->first + t->rows / t->groups);
        if (first >= last) continue;
        const int64_t left = (first - t->first) * t->groups / (2 * TILE) * (2 * TILE);
        const int64_t right = least(padded, ((last - t->first) * t->groups + 2 * TILE - 1) / (2 * TILE) * (2 * TILE));
        for (int64_t j = 0; j < KEYS; j += 2 * TILE)
            for (int64_t r = left; r < right; r += 2 * TILE) {
                square_product(keys + j * dim, dim, q_turned + 2 * r, ROWS_AMX, dim, scores + j * WIDE + r, WIDE);
                square_product(values + j * dim, dim, g_turned + 2 * r, ROWS_AMX, dim, slopes + j * WIDE + r, WIDE);
            }
        for (int64_t j = 0; j < KEYS; j += 2) {
            int64_t from[2], to[2];
            for (int i = 0; i < 2; i++) {
                int64_t key = block + j + i, seen = key >= t->floor && key < c->keys;
                from[i] = (most(key - t->offset, t->first) - t->first) * t->groups;
                to[i] = seen ? (least(key + c->window - t->offset, t->first + t->rows / t->groups) - t->first) * t->groups : 0;
            }
            for (int64_t r = left; r < right; r += VL) {
                vf slope[2];
#pragma GCC unroll 2
                for (int i = 0; i < 2; i++) {
                    int64_t at = (j + i) * WIDE + r;
                    int64_t low = least(most(from[i] - r, 0), VL), high = least(most(to[i] - r, 0), VL);
                    __mmask16 seen = (__mmask16)(((1u << high) - 1) & ~((1u << low) - 1));
                    vf p = _mm512_maskz_mov_ps(seen, v_exp2(v_fma(v_load(scores + at), scale2, -v_load(lse + r))));
                    slope[i] = _mm512_maskz_mul_ps(seen, p * (v_load(slopes + at) - v_load(delta + r)), scale);
                    v_to_bf16(weights + at, p);
                    v_to_bf16(narrowed + at, slope[i]);
                }
                __m256i even = (__m256i)_mm512_cvtneps_pbh(slope[0]), odd = (__m256i)_mm512_cvtneps_pbh(slope[1]);
                _mm512_storeu_si512((float *)zipped + PAIRS(j) * WIDE + r, paired(even, odd));
            }
        }
        for (int64_t r = left; r < right; r += 2 * TILE)
            for (int64_t d = 0; d < dim; d += TILE)
                row_product(turned + d * KEYS, KEYS, zipped + 2 * r, WIDE, KEYS, grad_q + d * WIDE + r, WIDE, 2);
        int halo = block < sink->own, partial = block + KEYS > c->keys;
        int64_t step = halo ? dim : sink->step;
        float *k = halo ? sink->halo_k + (block - sink->halo_first) * dim : sink->k + block * step;
        float *v = halo ? sink->halo_v + (block - sink->halo_first) * dim : sink->v + block * step;
        if (partial) memset(spare, 0, (size_t)(2 * KEYS * dim) * 4);
        for (int64_t j = 0; j < KEYS; j += TILE) {
            float *to_k = partial ? spare + j * dim : k + j * step, *to_v = partial ? spare + (KEYS + j) * dim : v + j * step;
            int64_t pitch = partial ? dim : step;
            wide_product(narrowed + j * WIDE + left, WIDE, q_zipped + left * dim, dim, right - left, to_k, pitch, dim);
            wide_product(weights + j * WIDE + left, WIDE, g_zipped + left * dim, dim, right - left, to_v, pitch, dim);
        }
        for (int64_t j = 0; partial && j < c->keys - block; j++)
            for (int64_t d = 0; d < dim; d += VL) {
                v_store(k + j * step + d, v_load(k + j * step + d) + v_load(spare + j * dim + d));
                v_store(v + j * step + d, v_load(v + j * step + d) + v_load(spare + (KEYS + j) * dim + d));
            }
    }
    for (int64_t r = 0; r < t->rows; r += TILE)
        for (int64_t d = 0; d < dim; d += TILE) {
            vf square[TILE];
#pragma GCC unroll 16
            for (int i = 0; i < TILE; i++) square[i] = v_load(grad_q + (d + i) * WIDE + r);
            v_turn(square);
            for (int64_t i = 0; i < least(TILE, t->rows - r); i++)
                put(c->grad_q, place(c, t->b, t->token[r + i], t->head[r + i]) + d, BFLOAT16, square[i]);
        }
}
