/* Shared by all attention kernels: the call, a worker's memory, tiles and the keys that they see, blocks of keys. */
#ifndef MINIWIN_ATTENTION_H
#define MINIWIN_ATTENTION_H

#include "call.h"
#include "numbers.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 64               /* keys of a block */
#define ROWS 64               /* rows of a tile */
#define ROWS_AMX 128          /* rows of a tile in the backward on AMX */
#define SPAN 1024             /* keys whose scores are held at a time */
#define PITCH (SPAN + 16)     /* floats from row to row: a power of two would put all rows in the same few cache lines */
#define FEW 8                 /* a tile of at most so many rows reads keys in place, without unpacking them */
#define LOT 4                 /* rows at a time in such a tile */
#define AHEAD 16              /* how many keys ahead such a tile prefetches */
#define TALL 136              /* the most rows of a tile, hence the most query heads that share keys */
#define HALOS (1 << 26)       /* the most numbers in the halos of all runs together */
#define RING (4 << 20)        /* the most bytes in the ring of a worker */
#define BAND (2 << 20)        /* the most bytes in the blocks of a band */
#define SUMS (1 << 20)        /* the most numbers in the sums of a group of tiles */

/* ---- memory of a worker ---- */

typedef struct {
    float *memory;
    int64_t size;
} Room;
static _Thread_local Room room;
static pthread_key_t leaving; /* frees a thread's memory when it ends */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_key(void) { pthread_key_create(&leaving, free); }

/* This thread's memory, grown to so many floats; null if there is not enough. */
static float *reserve(int64_t floats) {
    if (room.size < floats) {
        pthread_once(&once, make_key);
        free(room.memory);
        room.memory = aligned_alloc(64, (size_t)((floats * 4 + 63) / 64 * 64));
        room.size = room.memory ? floats : 0;
        pthread_setspecific(leaving, room.memory);
    }
    return room.memory;
}

/* ---- tiles, and the keys they see ---- */

typedef struct {
    const Call *call;
    int64_t b, h, groups, offset, first, rows, padded; /* first token; padded: rows, up to whole groups of MR */
    int64_t floor;                                     /* keys before it do not exist: padding */
    int64_t token[TALL], head[TALL];                   /* of each row; rows that only fill up repeat the last one */
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

/* The slot of a block of keys. missing: the block is not in it yet, and the caller has to unpack it there. */
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

/* ---- blocks of keys ---- */

/* Keys or values first .. first + KEYS of one head, in float32: as they are into `straight` (KEYS x D), transposed into
 * `turned` (D x KEYS); either may be null. Beyond the last key there are zeros. */
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
            for (int i = 0; i < VL; i++) {
                r[i] = v_set(0.0f);
                if (j + i < there) r[i] = get(base, origin + (j + i) * stride[1] + d, c->kv_type) * v_set(factor[j + i]);
            }
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

/* Where row (token, head) of a contiguous (B, N, H, D) tensor begins. */
INLINE int64_t place(const Call *c, int64_t b, int64_t token, int64_t head) {
    return ((b * c->queries + token) * c->heads + head) * c->dim;
}

/* ---- the sums of a tile ---- */

/* Of each row: its query, its scores at hand, its highest score so far, and two sums over the keys so far,
 * o = sum exp2(s - high) v and sum = sum exp2(s - high). */
typedef struct {
    float *q, *o, *scores, *high, *sum;
} Sums;

/* Place a tile's sums at `at`: rows * (dim + 2) numbers. */
INLINE void sums_of(Sums *s, float *at, int64_t rows, int64_t dim) {
    s->o = at;
    s->high = at + rows * dim;
    s->sum = s->high + rows;
}

INLINE void begin_sums(Sums *s, int64_t rows, int64_t dim) {
    memset(s->o, 0, (size_t)(rows * dim) * 4);
    for (int64_t r = 0; r < rows; r++) s->high[r] = -INFINITY, s->sum[r] = 0.0f;
}

/* Row r gets more keys. now: its highest score so far, these keys included. sum: their sum of exp2(s - now). Earlier sums
 * are scaled down from the highest score before to `now`. */
INLINE void add_keys(Sums *s, int64_t r, float now, float sum, int64_t dim) {
    const float before = s->high[r], fade = exp2f(before - now);
    s->sum[r] = s->sum[r] * fade + sum;
    s->high[r] = now;
    if (fade != 1.0f && before != -INFINITY) /* fade may be 0 */
        for (int64_t d = 0; d < dim; d += VL) v_store(s->o + r * dim + d, v_load(s->o + r * dim + d) * v_set(fade));
}

/* Where gradients of keys and values go. k, v: those of key 0 of this head, `step` floats from key to key. Keys before `own`
 * go to the halo instead, which begins with key halo_first. */
typedef struct {
    float *k, *v, *halo_k, *halo_v;
    int64_t step, own, halo_first;
} Sink;

#endif
