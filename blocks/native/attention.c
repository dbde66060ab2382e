/* Causal attention, in a window or over everything, in float32 on a CPU; the layout is (B, N, H, D).
 *
 * A tile is the ROWS queries of some tokens and of all query heads that read one key/value head; row r of it is token
 * r / groups, head r % groups. It sees a stretch of keys, in blocks of KEYS:
 *
 *     S = Q K^T;  P = exp2(S - max);  O = P V / sum(P)                        (scale * log2(e) is multiplied into Q)
 *
 * and backward, with L = log2(sum exp2(S)), delta = rowsum(dO * O):
 *
 *     P = exp2(S - L);  dP = dO V^T;  dS = P (dP - delta) scale;  dQ += dS K;  dK += dS^T Q;  dV += P^T dO
 *
 * (FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2.) Within a tile, groups of MR rows skip the keys that none
 * of them sees, VL at a time. A worker takes a run of neighbouring tiles and keeps the blocks they share, turned and
 * widened to float32, in a ring that fits its cache. Where there are few tiles and many keys (decoding), several
 * workers share a tile, each with some of the keys, and their sums are joined at the end.
 */
#include "simd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 64
#define ROWS 64
#define ROWS_AMX 128          /* of a tile of the backward on AMX */
#define SPAN 1024             /* keys whose scores are held at a time */
#define PITCH (SPAN + 16)     /* floats from row to row: a power of two would put all rows in the same few cache lines */
#define FEW 8                 /* rows of a tile for which keys are read where they are */
#define LOT 4                 /* rows of those at a time */
#define AHEAD 16              /* keys before its turn that one is asked for */
#define TALL 136              /* rows that a tile may have: no more heads than this may share keys */
#define HALOS (1 << 26)       /* numbers that runs may put aside for the keys before them, all together */
#define RING (4 << 20)        /* bytes of blocks that a worker keeps */
#define LOG2E 1.44269504089f
#define LN2 0.69314718056f
#define PUBLIC __attribute__((visibility("default")))

enum { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

/* Strides in elements; the last dimension is contiguous. Mirrored in native/__init__.py. */
typedef struct {
    int64_t batch, queries, keys, heads, kv_heads, dim, window, threads, q_type, kv_type;
    int64_t q_stride[3], k_stride[3], v_stride[3]; /* batch, token, head */
    const void *q, *k, *v;
    const float *k_scale, *v_scale; /* of int8: (B, M, Hkv), contiguous in its last dimension */
    int64_t k_scale_stride[2], v_scale_stride[2];
    const int64_t *pad; /* (B,) or null: the first keys of a row, and the queries among them, do not exist */
    void *out;          /* (B, N, H, D), in the type of q */
    float *lse;         /* (B, N, H) or null: log(sum exp(scores)) */
    const void *grad;   /* backward: (B, N, H, D), in the type of q */
    void *grad_q;              /* as grad */
    float *grad_k, *grad_v;    /* (B, M, Hkv, D), zeros */
    float scale;
} Call;

/* What the library was compiled from (setup.py). */
PUBLIC uint32_t miniwin_sources(void) { return SOURCES; }

/* ---- memory of a worker ---- */

typedef struct {
    float *memory;
    int64_t size;
} Room;
static _Thread_local Room room;

static float *reserve(int64_t floats) {
    if (room.size < floats) {
        free(room.memory);
        room.memory = aligned_alloc(64, (size_t)((floats * 4 + 63) / 64 * 64));
        room.size = room.memory ? floats : 0;
    }
    return room.memory;
}

/* ---- small matrix products ---- */

/* C (mr x nv vectors) = or += A B: A(r, k) at A[r * ar + k * ak], B(k, :) at B[k * ldb]. */
INLINE void product(const float *A, int64_t ar, int64_t ak, const float *B, int64_t ldb, int64_t K, float *C,
                    int64_t ldc, int add, const int mr, const int nv) {
    vf c[MR][2];
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) c[r][j] = add ? v_load(C + r * ldc + j * VL) : v_set(0.0f);
    for (int64_t k = 0; k < K; k++) {
        vf b[2];
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) b[j] = v_load(B + j * VL);
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++) {
            vf a = v_set(A[r * ar]);
#pragma GCC unroll 2
            for (int j = 0; j < nv; j++) c[r][j] = v_fma(a, b[j], c[r][j]);
        }
        A += ak;
        B += ldb;
    }
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nv; j++) v_store(C + r * ldc + j * VL, c[r][j]);
}

/* MR rows of C, `vectors` wide. across: A is read by columns (A transposed). */
static void products(const float *A, int64_t lda, int across, const float *B, int64_t ldb, int64_t K, float *C,
                     int64_t ldc, int64_t vectors, int add) {
    int64_t j = 0;
    if (across) {
        for (; j + 2 <= vectors; j += 2) product(A, 1, lda, B + j * VL, ldb, K, C + j * VL, ldc, add, MR, 2);
        if (j < vectors) product(A, 1, lda, B + j * VL, ldb, K, C + j * VL, ldc, add, MR, 1);
    } else {
        for (; j + 2 <= vectors; j += 2) product(A, lda, 1, B + j * VL, ldb, K, C + j * VL, ldc, add, MR, 2);
        if (j < vectors) product(A, lda, 1, B + j * VL, ldb, K, C + j * VL, ldc, add, MR, 1);
    }
}

/* ---- rows in and out ---- */

INLINE vf widened(const void *base, int64_t at, int64_t type, vf factor) {
    if (type == FLOAT32) return v_load((const float *)base + at) * factor;
    if (type == BFLOAT16) return v_of_bf16((const uint16_t *)base + at) * factor;
    return v_of_int8((const int8_t *)base + at) * factor;
}

INLINE void put(void *base, int64_t at, int64_t type, vf x) {
    if (type == FLOAT32) v_store((float *)base + at, x);
    else v_to_bf16((uint16_t *)base + at, x);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Keys or values first .. first + KEYS of one head, in float32: as they are into `straight` (KEYS x D), and turned
 * into `turned` (D x KEYS); either may be null. Beyond the last key there are zeros. */
static void unpack(const Call *c, int values, int64_t b, int64_t h, int64_t first, float *straight, float *turned) {
    const int64_t *stride = values ? c->v_stride : c->k_stride, dim = c->dim;
    const void *base = values ? c->v : c->k;
    const float *scales = values ? c->v_scale : c->k_scale;
    const int64_t *steps = values ? c->v_scale_stride : c->k_scale_stride;
    int64_t there = least(KEYS, c->keys - first), origin = b * stride[0] + first * stride[1] + h * stride[2];
    float factor[KEYS];
    for (int64_t j = 0; j < there; j++)
        factor[j] = scales ? scales[b * steps[0] + (first + j) * steps[1] + h] : 1.0f;
    for (int64_t j = 0; j < KEYS; j += VL)
        for (int64_t d = 0; d < dim; d += VL) {
            vf r[VL];
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++)
                r[i] = j + i < there ? widened(base, origin + (j + i) * stride[1] + d, c->kv_type, v_set(factor[j + i]))
                                     : v_set(0.0f);
            if (straight)
#pragma GCC unroll 16
                for (int i = 0; i < VL; i++) v_store(straight + (j + i) * dim + d, r[i]);
            if (turned) {
                v_turn(r);
#pragma GCC unroll 16
                for (int i = 0; i < VL; i++) v_store(turned + (d + i) * KEYS + j, r[i]);
            }
        }
}

/* Where row (token, head) of a (B, N, H, D) tensor without gaps begins. */
INLINE int64_t place(const Call *c, int64_t b, int64_t token, int64_t head) {
    return ((b * c->queries + token) * c->heads + head) * c->dim;
}

/* ---- a tile ---- */

typedef struct {
    const Call *call;
    int64_t b, h, groups, offset, first, rows, padded; /* first token; padded: rows, up to whole groups of MR */
    int64_t floor;                                     /* keys before it do not exist: padding */
    int64_t token[TALL], head[TALL];                   /* of each row; those that only fill up repeat the last one */
} Tile;

/* The keys that tokens from .. to (both included) see, within low .. high. */
INLINE void sight(const Tile *t, int64_t from, int64_t to, int64_t low, int64_t high, int64_t *begin, int64_t *end) {
    *begin = most(most(t->offset + from - t->call->window + 1, t->floor), low);
    *end = least(t->offset + to + 1, high);
}

typedef struct {
    float *blocks;  /* slots of `parts` blocks each */
    int64_t *holds; /* which block is in a slot; -1: none */
    int64_t slots, size;
} Ring;

static float *slot(Ring *ring, int64_t block, int *missing) {
    int64_t at = block % ring->slots;
    *missing = ring->holds[at] != block;
    ring->holds[at] = block;
    return ring->blocks + at * ring->size;
}

static Tile tile_of(const Call *c, int64_t b, int64_t h, int64_t first, int64_t tokens) {
    Tile t = {.call = c, .b = b, .h = h, .groups = c->heads / c->kv_heads, .offset = c->keys - c->queries, .first = first,
              .floor = c->pad ? c->pad[b] : 0};
    t.rows = tokens * t.groups;
    t.padded = (t.rows + MR - 1) / MR * MR;
    for (int64_t r = 0, token = first, head = 0; r < TALL; r++) {
        t.token[r] = token;
        t.head[r] = h * t.groups + head;
        if (r < t.rows - 1 && ++head == t.groups) head = 0, token++;
    }
    return t;
}

static void read_rows(const Tile *t, const void *base, const int64_t *stride, float factor, float *into) {
    const Call *c = t->call;
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t at = t->b * stride[0] + t->token[r] * stride[1] + t->head[r] * stride[2];
        for (int64_t d = 0; d < c->dim; d += VL) v_store(into + r * c->dim + d, widened(base, at + d, c->q_type, v_set(factor)));
    }
    memset(into + t->rows * c->dim, 0, (size_t)((t->padded - t->rows) * c->dim) * 4);
}

typedef struct {
    float *q, *o, *scores, *high, *sum;
} Sums;

/* A few rows: keys and values are read once, from where they are, since turning them would cost more than it gains. */

/* Ask for a row that will be read soon; it may lie beyond the last one, since asking never fails. */
INLINE void ahead(const void *base, int64_t at, int64_t dim, int64_t type) {
    const int64_t size = type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 1;
    for (int64_t d = 0; d < dim * size; d += 64) _mm_prefetch((const char *)base + at * size + d, _MM_HINT_T0);
}

/* Scores of LOT rows with keys first .. first + count, at most KEYS; what is beyond count in the last vector is 0. */
static void few_scores(const Tile *t, const float *q, int64_t first, int64_t count, float *scores) {
    const Call *c = t->call;
    const int64_t dim = c->dim, *stride = c->k_stride, *steps = c->k_scale_stride;
    int64_t at = t->b * stride[0] + first * stride[1] + t->h * stride[2];
    const float *factor = c->k_scale ? c->k_scale + t->b * steps[0] + first * steps[1] + t->h : NULL;
    for (int64_t j = 0; j < count; j += VL) {
        vf dots[LOT][VL];
        for (int64_t i = 0; i < VL; i++) {
            vf sum[LOT];
            for (int r = 0; r < LOT; r++) sum[r] = v_set(0.0f);
            if (j + i < count) {
                ahead(c->k, at + (j + i + AHEAD) * stride[1], dim, c->kv_type);
                for (int64_t d = 0; d < dim; d += VL) {
                    vf k = widened(c->k, at + (j + i) * stride[1] + d, c->kv_type, v_set(1.0f));
#pragma GCC unroll 4
                    for (int r = 0; r < LOT; r++) sum[r] = v_fma(k, v_load(q + r * dim + d), sum[r]);
                }
                if (factor)
                    for (int r = 0; r < LOT; r++) sum[r] *= v_set(factor[(j + i) * steps[1]]);
            }
#pragma GCC unroll 4
            for (int r = 0; r < LOT; r++) dots[r][i] = sum[r];
        }
        for (int r = 0; r < LOT; r++) {
            v_turn(dots[r]);
            for (int width = VL / 2; width; width /= 2)
                for (int i = 0; i < width; i++) dots[r][i] += dots[r][i + width];
            v_store(scores + r * PITCH + j, dots[r][0]);
        }
    }
}

/* o += weights V, of LOT rows and values first .. first + count. */
static void few_values(const Tile *t, const float *weights, int64_t first, int64_t count, float *o) {
    const Call *c = t->call;
    const int64_t dim = c->dim, *stride = c->v_stride, *steps = c->v_scale_stride;
    int64_t at = t->b * stride[0] + first * stride[1] + t->h * stride[2];
    const float *factor = c->v_scale ? c->v_scale + t->b * steps[0] + first * steps[1] + t->h : NULL;
    int64_t d = 0;
    for (; d + 2 * VL <= dim; d += 2 * VL) {
        vf sum[LOT][2];
        for (int r = 0; r < LOT; r++) sum[r][0] = v_load(o + r * dim + d), sum[r][1] = v_load(o + r * dim + d + VL);
        for (int64_t j = 0; j < count; j++) {
            vf scale = v_set(factor ? factor[j * steps[1]] : 1.0f);
            if (d == 0) ahead(c->v, at + (j + AHEAD) * stride[1], dim, c->kv_type);
            vf a = widened(c->v, at + j * stride[1] + d, c->kv_type, scale);
            vf b = widened(c->v, at + j * stride[1] + d + VL, c->kv_type, scale);
#pragma GCC unroll 4
            for (int r = 0; r < LOT; r++) {
                vf w = v_set(weights[r * PITCH + j]);
                sum[r][0] = v_fma(w, a, sum[r][0]);
                sum[r][1] = v_fma(w, b, sum[r][1]);
            }
        }
        for (int r = 0; r < LOT; r++) v_store(o + r * dim + d, sum[r][0]), v_store(o + r * dim + d + VL, sum[r][1]);
    }
    for (; d < dim; d += VL)
        for (int r = 0; r < LOT; r++) {
            vf sum = v_load(o + r * dim + d);
            for (int64_t j = 0; j < count; j++)
                sum = v_fma(v_set(weights[r * PITCH + j] * (factor ? factor[j * steps[1]] : 1.0f)),
                            widened(c->v, at + j * stride[1] + d, c->kv_type, v_set(1.0f)), sum);
            v_store(o + r * dim + d, sum);
        }
}

/* Rows of q against keys low .. high: o = sum exp2(s - high) v, sum = sum exp2(s - high). */
static void forward_tile(const Tile *t, int64_t low, int64_t high, Ring *ring, Sums *s) {
    const Call *c = t->call;
    const int64_t dim = c->dim, across = dim / VL;
    int64_t begin, end;
    read_rows(t, c->q, c->q_stride, c->scale * LOG2E, s->q);
    memset(s->o, 0, (size_t)(t->padded * dim) * 4);
    for (int64_t r = 0; r < t->padded; r++) s->high[r] = -INFINITY, s->sum[r] = 0.0f;
    sight(t, t->first, t->token[t->rows - 1], low, high, &begin, &end);
    for (int64_t base = begin / KEYS * KEYS; base < end; base += SPAN) {
        const int64_t stop = least(base + SPAN, end);
        for (int64_t block = base; block < stop; block += KEYS) {
            if (t->rows <= FEW) {
                for (int64_t r = 0; r < t->rows; r += LOT)
                    few_scores(t, s->q + r * dim, block, least(KEYS, c->keys - block), s->scores + r * PITCH + block - base);
                continue;
            }
            int missing;
            float *turned = slot(ring, block / KEYS, &missing), *values = turned + dim * KEYS;
            if (missing) {
                unpack(c, 0, t->b, t->h, block, NULL, turned);
                unpack(c, 1, t->b, t->h, block, values, NULL);
            }
            for (int64_t r = 0; r < t->padded; r += MR) {
                int64_t from, to;
                sight(t, t->token[r], t->token[r + MR - 1], most(block, low), least(block + KEYS, high), &from, &to);
                if (from >= to) continue;
                from = (from - block) / VL;
                to = (to - block + VL - 1) / VL;
                products(s->q + r * dim, dim, 0, turned + from * VL, KEYS, dim,
                         s->scores + r * PITCH + block - base + from * VL, PITCH, to - from, 0);
            }
        }
        for (int64_t r = 0; r < (t->rows <= FEW ? t->rows : t->padded); r++) {
            int64_t from, to, begins, ends, g = t->rows <= FEW ? 0 : r / MR * MR, last = t->rows <= FEW ? t->rows - 1 : g + MR - 1;
            sight(t, t->token[g], t->token[last], most(base, low), stop, &begins, &ends);
            sight(t, t->token[r], t->token[r], most(base, low), stop, &from, &to);
            if (begins >= ends) continue;
            float *row = s->scores + r * PITCH;
            int64_t left = (begins - base) / VL * VL, right = (ends - base + VL - 1) / VL * VL;
            from = least(most(from - base, left), right);
            to = most(least(to - base, right), from);
            for (int64_t j = left; j < from; j++) row[j] = -INFINITY;
            for (int64_t j = to; j < right; j++) row[j] = -INFINITY;
            vf highest = v_set(s->high[r]);
            for (int64_t j = left; j < right; j += VL) highest = v_max(v_load(row + j), highest);
            float now = v_highest(highest);
            if (now == -INFINITY) { /* nothing seen so far */
                for (int64_t j = left; j < right; j += VL) v_store(row + j, v_set(0.0f));
                continue;
            }
            vf sum = v_set(0.0f), shift = v_set(now);
            for (int64_t j = left; j < right; j += VL) {
                vf p = v_exp2(v_load(row + j) - shift);
                v_store(row + j, p);
                sum += p;
            }
            float fade = exp2f(s->high[r] - now);
            s->sum[r] = s->sum[r] * fade + v_sum(sum);
            s->high[r] = now;
            if (fade != 1.0f && fade != 0.0f)
                for (int64_t d = 0; d < dim; d += VL) v_store(s->o + r * dim + d, v_load(s->o + r * dim + d) * v_set(fade));
        }
        for (int64_t block = base; block < stop; block += KEYS) {
            if (t->rows <= FEW) {
                int64_t from, to;
                sight(t, t->first, t->token[t->rows - 1], most(block, low), least(block + KEYS, high), &from, &to);
                for (int64_t r = 0; r < t->rows && from < to; r += LOT)
                    few_values(t, s->scores + r * PITCH + from - base, from, to - from, s->o + r * dim);
                continue;
            }
            int missing;
            float *turned = slot(ring, block / KEYS, &missing), *values = turned + dim * KEYS;
            if (missing) { /* a ring of fewer blocks than a span has */
                unpack(c, 0, t->b, t->h, block, NULL, turned);
                unpack(c, 1, t->b, t->h, block, values, NULL);
            }
            for (int64_t r = 0; r < t->padded; r += MR) {
                int64_t from, to;
                sight(t, t->token[r], t->token[r + MR - 1], most(block, low), least(block + KEYS, high), &from, &to);
                if (from < to)
                    products(s->scores + r * PITCH + from - base, PITCH, 0, values + (from - block) * dim, dim, to - from,
                             s->o + r * dim, dim, across, 1);
            }
        }
    }
}

static void write_tile(const Tile *t, const float *o, const float *high, const float *sum) {
    const Call *c = t->call;
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t at = place(c, t->b, t->token[r], t->head[r]);
        vf share = v_set(1.0f / sum[r]);
        for (int64_t d = 0; d < c->dim; d += VL) put(c->out, at + d, c->q_type, v_load(o + r * c->dim + d) * share);
        if (c->lse) c->lse[at / c->dim] = (high[r] + log2f(sum[r])) * LN2;
    }
}

/* grad_k, grad_v: of key 0 of this head, `step` floats from key to key; before key `own` go those of `halo`. */
typedef struct {
    float *k, *v, *halo_k, *halo_v;
    int64_t step, own, halo_first;
} Sink;

#ifdef __AMX_BF16__
#include "attention_amx.h"
#else
PUBLIC int miniwin_start(void) { return 0; }
#endif

/* ---- the work of a call ---- */

typedef struct {
    int64_t tokens, runs, length, pieces, piece; /* of a tile; of a row, and tokens of one; of the keys, and their size */
} Plan;

/* runs begin where a block of keys does. */
static Plan plan_of(const Call *c, int forward, int64_t tall) {
    Plan p;
    int64_t groups = c->heads / c->kv_heads, rows = c->batch * c->kv_heads;
    p.tokens = most(1, tall / groups);
    p.pieces = 1;
    p.piece = c->keys;
    int64_t tiles = (c->queries + p.tokens - 1) / p.tokens;
    /* A run unpacks the keys before it once more; backward, it has a halo of gradients besides, all of it in HALOS. */
    int64_t all = c->window >= c->keys, enough = forward ? most(KEYS, 4 * p.tokens) : most(4 * KEYS, all ? 0 : c->window);
    p.runs = least(4 * c->threads / rows + 1, c->queries / enough);
    if (!forward && all) p.runs = least(p.runs, HALOS / (rows * c->keys * c->dim));
    p.runs = c->threads == 1 ? 1 : most(1, p.runs);
    if (forward && all && c->keys >= 2048 && (tiles == 1 || rows * p.runs < 2 * c->threads)) {
        /* Alone, a tile takes small pieces: the heads of a token are neighbours in memory, and share what is fetched. */
        p.runs = 1;
        p.pieces = tiles == 1 ? c->keys / 1024 : least(c->keys / 1024, 4 * c->threads / rows + 1);
        p.piece = ((c->keys + p.pieces - 1) / p.pieces + KEYS - 1) / KEYS * KEYS;
        p.pieces = (c->keys + p.piece - 1) / p.piece;
    }
    p.length = ((c->queries + p.runs - 1) / p.runs + KEYS - 1) / KEYS * KEYS;
    p.runs = (c->queries + p.length - 1) / p.length;
    return p;
}

/* The tokens of run i. Runs but the first begin with the first query of a block of keys. */
static void run_of(const Call *c, const Plan *p, int64_t i, int64_t *begin, int64_t *end) {
    int64_t offset = c->keys - c->queries, lead = (KEYS - offset % KEYS) % KEYS;
    *begin = i == 0 ? 0 : least(i * p->length + lead, c->queries);
    *end = i == p->runs - 1 ? c->queries : least((i + 1) * p->length + lead, c->queries);
}

static Ring ring_of(const Call *c, int parts, float *memory, int64_t *holds, int64_t slots) {
    Ring ring = {memory, holds, slots, parts * c->dim * KEYS};
    for (int64_t i = 0; i < slots; i++) holds[i] = -1;
    return ring;
}

static int64_t slots_of(const Call *c, const Plan *p, int parts) {
    int64_t needed = least(c->window + p->tokens, c->keys) / KEYS + 2;
    return most(1, least(needed, RING / (parts * c->dim * KEYS * 4)));
}

static int64_t first_real(const Call *c, int64_t b) { /* the first query that is no padding */
    return c->pad ? most(0, c->pad[b] - (c->keys - c->queries)) : 0;
}

PUBLIC int miniwin_attention_forward(const Call *call) {
    const Call c = *call;
#ifdef __AMX_BF16__
    const int amx = amx_takes(&c);
    const int64_t parts_of_slot = amx ? AMX_FORWARD_PARTS : 2, more = amx ? amx_forward_floats(c.dim) : 0;
#else
    const int64_t parts_of_slot = 2, more = 0;
#endif
    const Plan plan = plan_of(&c, 1, ROWS);
    const int64_t rows = c.batch * c.kv_heads, units = rows * plan.runs * plan.pieces, dim = c.dim;
    const int64_t groups = c.heads / c.kv_heads, height = (plan.tokens * groups + 31) / 32 * 32;
    const int64_t slots = slots_of(&c, &plan, parts_of_slot), ring_size = slots * parts_of_slot * dim * KEYS;
    const int64_t needed = ring_size + height * (2 * dim + PITCH + 2) + 2 * slots + 64 + more;
    /* With several pieces: what each found, to be joined. A row has but few tiles then. */
    const int64_t tiles = (c.queries + plan.tokens - 1) / plan.tokens, found = height * (dim + 2);
    float *parts = NULL;
    int failed = 0;
    if (plan.pieces > 1 && !(parts = malloc((size_t)(rows * plan.pieces * tiles * found) * 4))) return 1;
#pragma omp parallel for schedule(dynamic, plan.pieces > 1 ? c.kv_heads : 1) num_threads((int)c.threads) if (c.threads > 1 && units > 1)
    for (int64_t u = 0; u < units; u++) {
        float *memory = reserve(needed);
        if (!memory) {
            failed = 1;
            continue;
        }
        int64_t i = units - 1 - u; /* the longest first */
        int64_t row = i % rows, piece = i / rows % plan.pieces, run = i / rows / plan.pieces; /* heads of a token are neighbours in memory */
        int64_t b = row / c.kv_heads, h = row % c.kv_heads, begin, end;
        Sums s = {.q = memory + ring_size};
        s.o = s.q + height * dim;
        s.scores = s.o + height * dim;
        s.high = s.scores + height * PITCH;
        s.sum = s.high + height;
        int64_t *holds = (int64_t *)((uintptr_t)(s.sum + height + 15) & ~(uintptr_t)63);
        Ring ring = ring_of(&c, parts_of_slot, memory, holds, slots);
#ifdef __AMX_BF16__
        if (amx) tiles_on();
#endif
        run_of(&c, &plan, run, &begin, &end);
        for (int64_t t = most(begin, first_real(&c, b)); t < end; t += plan.tokens) {
            Tile tile = tile_of(&c, b, h, t, least(plan.tokens, end - t));
            int64_t low = piece * plan.piece, high = least(low + plan.piece, c.keys);
#ifdef __AMX_BF16__
            if (amx) amx_forward_tile(&tile, low, high, &ring, &s, (float *)(holds + slots));
            else
#endif
                forward_tile(&tile, low, high, &ring, &s);
            if (!parts) {
                write_tile(&tile, s.o, s.high, s.sum);
                continue;
            }
            float *mine = parts + ((row * tiles + t / plan.tokens) * plan.pieces + piece) * found;
            memcpy(mine, s.high, (size_t)height * 4);
            memcpy(mine + height, s.sum, (size_t)height * 4);
            memcpy(mine + 2 * height, s.o, (size_t)(tile.padded * dim) * 4);
        }
#ifdef __AMX_BF16__
        if (amx) _tile_release();
#endif
    }
    for (int64_t row = 0; parts && !failed && row < rows; row++)
        for (int64_t t = first_real(&c, row / c.kv_heads); t < c.queries; t += plan.tokens) {
            Tile tile = tile_of(&c, row / c.kv_heads, row % c.kv_heads, t, least(plan.tokens, c.queries - t));
            float *all = parts + (row * tiles + t / plan.tokens) * plan.pieces * found;
            for (int64_t r = 0; r < tile.rows; r++) {
                float high = -INFINITY, sum = 0.0f;
                for (int64_t p = 0; p < plan.pieces; p++) high = fmaxf(high, all[p * found + r]);
                for (int64_t p = 0; p < plan.pieces; p++) {
                    float *o = all + p * found + 2 * height + r * dim, share = exp2f(all[p * found + r] - high);
                    sum += share * all[p * found + height + r];
                    for (int64_t d = 0; d < dim; d += VL) {
                        vf before = p ? v_load(all + 2 * height + r * dim + d) : v_set(0.0f);
                        v_store(all + 2 * height + r * dim + d, v_fma(v_load(o + d), v_set(share), before));
                    }
                }
                all[r] = high;
                all[height + r] = sum;
            }
            write_tile(&tile, all + 2 * height, all, all + height);
        }
    free(parts);
    return failed;
}

/* ---- backward ---- */

typedef struct {
    float *q, *scaled, *grad, *grad_q, *weights, *slopes, *lse, *delta;
} Backward;

static void backward_tile(const Tile *t, Ring *ring, Backward *s, const Sink *sink) {
    const Call *c = t->call;
    const int64_t dim = c->dim, across = dim / VL, whole[3] = {c->queries * c->heads * dim, c->heads * dim, dim};
    int64_t begin, end;
    read_rows(t, c->q, c->q_stride, 1.0f, s->q);
    read_rows(t, c->grad, whole, 1.0f, s->grad);
    memset(s->grad_q, 0, (size_t)(t->padded * dim) * 4);
    for (int64_t i = 0; i < t->padded * dim; i += VL)
        v_store(s->scaled + i, v_load(s->q + i) * v_set(c->scale * LOG2E));
    for (int64_t r = 0; r < t->padded; r++) {
        vf sum = v_set(0.0f);
        int64_t at = place(c, t->b, t->token[r], t->head[r]);
        for (int64_t d = 0; d < dim; d += VL)
            sum = v_fma(widened(c->out, at + d, c->q_type, v_set(1.0f)), v_load(s->grad + r * dim + d), sum);
        s->delta[r] = v_sum(sum);
        s->lse[r] = c->lse[at / dim] * LOG2E;
    }
    sight(t, t->first, t->token[t->rows - 1], 0, c->keys, &begin, &end);
    for (int64_t block = begin / KEYS * KEYS; block < end; block += KEYS) {
        int missing;
        float *turned = slot(ring, block / KEYS, &missing), *keys = turned + dim * KEYS, *values = keys + dim * KEYS;
        if (missing) {
            unpack(c, 0, t->b, t->h, block, keys, turned);
            unpack(c, 1, t->b, t->h, block, NULL, values);
        }
        for (int64_t g = 0; g < t->padded; g += MR) {
            int64_t begins, ends;
            sight(t, t->token[g], t->token[g + MR - 1], block, block + KEYS, &begins, &ends);
            if (begins >= ends) continue;
            int64_t left = (begins - block) / VL * VL, right = (ends - block + VL - 1) / VL * VL;
            float *weights = s->weights + g * KEYS, *slopes = s->slopes + g * KEYS;
            products(s->scaled + g * dim, dim, 0, turned + left, KEYS, dim, weights + left, KEYS, (right - left) / VL, 0);
            products(s->grad + g * dim, dim, 0, values + left, KEYS, dim, slopes + left, KEYS, (right - left) / VL, 0);
            for (int64_t r = 0; r < MR; r++) {
                int64_t from, to;
                sight(t, t->token[g + r], t->token[g + r], block, block + KEYS, &from, &to);
                if (g + r >= t->rows) to = from; /* rows that only fill up */
                from = least(most(from - block, left), right);
                to = most(least(to - block, right), from);
                float *w = weights + r * KEYS, *x = slopes + r * KEYS;
                for (int64_t j = left; j < from; j++) w[j] = -INFINITY;
                for (int64_t j = to; j < right; j++) w[j] = -INFINITY;
                vf lse = v_set(s->lse[g + r]), delta = v_set(s->delta[g + r]), scale = v_set(c->scale);
                for (int64_t j = left; j < right; j += VL) {
                    vf p = v_exp2(v_load(w + j) - lse);
                    v_store(w + j, p);
                    v_store(x + j, p * (v_load(x + j) - delta) * scale);
                }
            }
            products(slopes + begins - block, KEYS, 0, keys + (begins - block) * dim, dim, ends - begins,
                     s->grad_q + g * dim, dim, across, 1);
        }
        for (int64_t j = 0; j < KEYS; j += MR) {
            /* The tokens that see some of these keys, and their rows. */
            int64_t key = block + j, last = least(key + MR, c->keys) - 1;
            if (last < key || last < t->floor) continue;
            int64_t from = most(key - t->offset, t->first), to = least(last + c->window - t->offset, t->first + t->rows / t->groups);
            if (from >= to) continue;
            from = (from - t->first) * t->groups;
            to = (to - t->first) * t->groups;
            int halo = key < sink->own;
            int64_t step = halo ? dim : sink->step;
            float *k = halo ? sink->halo_k + (key - sink->halo_first) * dim : sink->k + key * step;
            float *v = halo ? sink->halo_v + (key - sink->halo_first) * dim : sink->v + key * step;
            if (last - key == MR - 1) {
                products(s->slopes + from * KEYS + j, KEYS, 1, s->q + from * dim, dim, to - from, k, step, across, 1);
                products(s->weights + from * KEYS + j, KEYS, 1, s->grad + from * dim, dim, to - from, v, step, across, 1);
                continue;
            }
            float spare[2][MR * 256] __attribute__((aligned(64)));
            products(s->slopes + from * KEYS + j, KEYS, 1, s->q + from * dim, dim, to - from, spare[0], dim, across, 0);
            products(s->weights + from * KEYS + j, KEYS, 1, s->grad + from * dim, dim, to - from, spare[1], dim, across, 0);
            for (int64_t i = 0; i <= last - key; i++)
                for (int64_t d = 0; d < dim; d += VL) {
                    v_store(k + i * step + d, v_load(k + i * step + d) + v_load(spare[0] + i * dim + d));
                    v_store(v + i * step + d, v_load(v + i * step + d) + v_load(spare[1] + i * dim + d));
                }
        }
    }
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t at = place(c, t->b, t->token[r], t->head[r]);
        for (int64_t d = 0; d < dim; d += VL) put(c->grad_q, at + d, c->q_type, v_load(s->grad_q + r * dim + d));
    }
}

PUBLIC int miniwin_attention_backward(const Call *call) {
    const Call c = *call;
#ifdef __AMX_BF16__
    const int amx = amx_takes(&c);
    const int64_t parts_of_slot = amx ? AMX_BACKWARD_PARTS : 3, tall = amx ? ROWS_AMX : ROWS;
    const int64_t own_floats = amx ? amx_backward_floats(c.dim) : 0;
#else
    const int64_t parts_of_slot = 3, tall = ROWS, own_floats = 0;
#endif
    const Plan plan = plan_of(&c, 0, tall);
    const int64_t rows = c.batch * c.kv_heads, units = rows * plan.runs, dim = c.dim, offset = c.keys - c.queries;
    const int64_t groups = c.heads / c.kv_heads, height = (plan.tokens * groups + MR - 1) / MR * MR;
    const int64_t slots = slots_of(&c, &plan, parts_of_slot), ring_size = slots * parts_of_slot * dim * KEYS;
    const int64_t needed = ring_size + most(height * (4 * dim + 2 * KEYS + 2), own_floats) + 2 * slots + 64;
    float **halos = calloc((size_t)units, sizeof *halos);
    int failed = !halos;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)c.threads) if (c.threads > 1 && units > 1)
    for (int64_t u = 0; u < units; u++) {
        float *memory = reserve(needed);
        int64_t i = units - 1 - u, row = i % rows, run = i / rows, b = row / c.kv_heads, h = row % c.kv_heads, begin, end;
        run_of(&c, &plan, run, &begin, &end);
        int64_t own = run ? offset + begin : 0, width = least(c.window, own);
        int64_t edge = (own - width) / KEYS * KEYS; /* whole blocks */
        if (halos && width) halos[i] = calloc((size_t)(2 * (own - edge) * dim), 4);
        if (!memory || !halos || (width && !halos[i])) {
            failed = 1;
            continue;
        }
        int64_t *holds = (int64_t *)((uintptr_t)(memory + needed - 2 * slots) & ~(uintptr_t)63);
        Backward s = {.q = memory + ring_size};
        s.scaled = s.q + height * dim;
        s.grad = s.scaled + height * dim;
        s.grad_q = s.grad + height * dim;
        s.weights = s.grad_q + height * dim;
        s.slopes = s.weights + height * KEYS;
        s.lse = s.slopes + height * KEYS;
        s.delta = s.lse + height;
        Ring ring = ring_of(&c, parts_of_slot, memory, holds, slots);
        int64_t at = (b * c.keys * c.kv_heads + h) * dim;
        Sink sink = {c.grad_k + at, c.grad_v + at, halos[i], halos[i] ? halos[i] + (own - edge) * dim : NULL,
                     c.kv_heads * dim, own, edge};
#ifdef __AMX_BF16__
        if (amx) tiles_on();
#endif
        for (int64_t t = most(begin, first_real(&c, b)); t < end; t += plan.tokens) {
            Tile tile = tile_of(&c, b, h, t, least(plan.tokens, end - t));
#ifdef __AMX_BF16__
            if (amx) amx_backward_tile(&tile, &ring, s.q, &sink);
            else
#endif
                backward_tile(&tile, &ring, &s, &sink);
        }
#ifdef __AMX_BF16__
        if (amx) _tile_release();
#endif
    }
    /* What runs found for the keys before them. */
    for (int64_t i = rows; !failed && i < units; i++) {
        int64_t row = i % rows, begin, end, at = (row / c.kv_heads * c.keys * c.kv_heads + row % c.kv_heads) * dim;
        run_of(&c, &plan, i / rows, &begin, &end);
        int64_t own = offset + begin, edge = (own - least(c.window, own)) / KEYS * KEYS, count = own - edge;
        for (int64_t j = 0; halos[i] && j < count; j++)
            for (int64_t d = 0; d < dim; d += VL) {
                float *k = c.grad_k + at + (edge + j) * c.kv_heads * dim + d, *v = k - c.grad_k + c.grad_v;
                v_store(k, v_load(k) + v_load(halos[i] + j * dim + d));
                v_store(v, v_load(v) + v_load(halos[i] + (count + j) * dim + d));
            }
    }
    for (int64_t i = 0; halos && i < units; i++) free(halos[i]);
    free(halos);
    return failed;
}
