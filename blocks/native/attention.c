/* Causal attention on a CPU, in a window or global; the layout is (B, N, H, D). This file divides the work among
 * threads; attention_float.h and attention_amx.h compute a tile.
 *
 * A tile is about ROWS queries: those of some tokens, in all query heads that read one key/value head. Its row r is token
 * r / groups, head r % groups. A tile sees a stretch of keys, in blocks of KEYS:
 *
 *     S = Q K^T;  P = exp2(S - max);  O = P V / sum(P)                        (scale * log2(e) is multiplied into Q)
 *
 * and backward, with L = log2(sum exp2(S)), delta = rowsum(dO * O):
 *
 *     P = exp2(S - L);  dP = dO V^T;  dS = P (dP - delta) scale;  dQ += dS K;  dK += dS^T Q;  dV += P^T dO
 *
 * (FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2.) Within a tile, groups of MR rows skip the keys that none
 * of them sees, VL at a time. A worker takes a run of neighbouring tiles. It keeps the blocks of keys that tiles share,
 * transposed and widened to float32, in a ring that fits the processor's cache. If tiles see more keys than the ring
 * holds, a group of tiles goes through the keys band by band. With few tiles and many keys (decoding), several workers
 * share a tile: each takes a piece of the keys, and their sums are joined at the end.
 */
#include "attention.h"

#include "attention_float.h"
#ifdef __AMX_BF16__
#include "attention_amx.h"
#else
PUBLIC int miniwin_start(void) { return 0; }
#endif

/* What the library was compiled from (setup.py). */
PUBLIC uint32_t miniwin_sources(void) { return SOURCES; }

/* ---- the work of a call ---- */

typedef struct {
    /* Tokens of a tile; runs of a row, and tokens of a run; pieces of the keys, and keys of a piece. */
    int64_t tokens, runs, length, pieces, piece;
} Plan;

/* How a call is divided. Runs begin where a block of keys begins. tall: rows that a tile should have. */
static Plan plan_of(const Call *c, int forward, int64_t tall) {
    Plan p;
    int64_t groups = c->heads / c->kv_heads, rows = c->batch * c->kv_heads;
    p.tokens = most(1, tall / groups);
    p.pieces = 1;
    p.piece = c->keys;
    int64_t tiles = (c->queries + p.tokens - 1) / p.tokens;
    /* A run unpacks the keys in the window before it again. In the backward it also has a halo: memory for the gradients
     * of these keys. All halos together are bounded by HALOS. */
    int64_t all = c->window >= c->keys, enough = forward ? most(KEYS, 4 * p.tokens) : most(4 * KEYS, all ? 0 : c->window);
    p.runs = least(4 * c->threads / rows + 1, c->queries / enough);
    if (!forward && all) p.runs = least(p.runs, HALOS / (rows * c->keys * c->dim));
    p.runs = c->threads == 1 ? 1 : most(1, p.runs);
    if (forward && all && c->keys >= 2048 && (tiles == 1 || rows * p.runs < 2 * c->threads)) {
        /* A single tile takes small pieces: the heads of a token are neighbours in memory, and share what is fetched. */
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

static int64_t first_real(const Call *c, int64_t b) { /* the first query that is not padding */
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
    const int64_t groups = c.heads / c.kv_heads;
    const int64_t height = (least(plan.tokens, c.queries) * groups + 31) / 32 * 32; /* rows of the tallest tile */
    const int64_t slots = slots_of(&c, &plan, parts_of_slot), ring_size = slots * parts_of_slot * dim * KEYS;
    const int64_t tiles = (c.queries + plan.tokens - 1) / plan.tokens;
    /* Many keys of a global layer: a group of tiles goes through them in bands of as many keys as fit into BAND. A group
     * has as many tiles as have room for their sums in SUMS. */
    const int64_t sums = height * (dim + 2), fits = BAND / (parts_of_slot * dim * KEYS * 4) * KEYS;
    const int64_t banded = c.window >= c.keys && c.keys > fits, group = banded ? most(1, least(SUMS / sums, tiles)) : 1;
    const int64_t band = group > 1 ? fits : c.keys;
    const int64_t needed = ring_size + height * (dim + PITCH) + group * sums + 2 * slots + 64 + more;
    /* With several pieces: the sums of each piece, to be joined. A row then has few tiles. */
    float *parts = NULL;
    int failed = 0;
    if (plan.pieces > 1 && !(parts = malloc((size_t)(rows * plan.pieces * tiles * sums) * 4))) return 1;
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
        const int64_t low = piece * plan.piece, high = least(low + plan.piece, c.keys);
        Sums s = {.q = memory + ring_size};
        s.scores = s.q + height * dim;
        float *states = s.scores + height * PITCH;
        int64_t *holds = (int64_t *)((uintptr_t)(states + group * sums + 15) & ~(uintptr_t)63);
        Ring ring = ring_of(&c, parts_of_slot, memory, holds, slots);
#ifdef __AMX_BF16__
        if (amx) tiles_on();
#endif
        run_of(&c, &plan, run, &begin, &end);
        for (int64_t first = most(begin, first_real(&c, b)); first < end; first += group * plan.tokens) {
            const int64_t last = least(first + group * plan.tokens, end);
            for (int64_t from = low; from < high; from += band)
                for (int64_t t = first; t < last; t += plan.tokens) {
                    Tile tile = tile_of(&c, b, h, t, least(plan.tokens, end - t));
                    sums_of(&s, states + (t - first) / plan.tokens * sums, height, dim);
                    if (from == low) begin_sums(&s, height, dim);
                    if (from > t + tile.offset + plan.tokens) continue;
#ifdef __AMX_BF16__
                    if (amx) amx_forward_tile(&tile, from, least(from + band, high), &ring, &s, (float *)(holds + slots));
                    else
#endif
                        forward_tile(&tile, from, least(from + band, high), &ring, &s);
                }
            for (int64_t t = first; t < last; t += plan.tokens) {
                sums_of(&s, states + (t - first) / plan.tokens * sums, height, dim);
                Tile tile = tile_of(&c, b, h, t, least(plan.tokens, end - t));
                if (!parts) {
                    write_tile(&tile, s.o, s.high, s.sum);
                    continue;
                }
                float *mine = parts + ((row * tiles + t / plan.tokens) * plan.pieces + piece) * sums;
                memcpy(mine, s.o, (size_t)(tile.rows * dim) * 4);
                memcpy(mine + height * dim, s.high, (size_t)(2 * height) * 4);
            }
        }
#ifdef __AMX_BF16__
        if (amx) _tile_release();
#endif
    }
    for (int64_t row = 0; parts && !failed && row < rows; row++)
        for (int64_t t = first_real(&c, row / c.kv_heads); t < c.queries; t += plan.tokens) {
            Tile tile = tile_of(&c, row / c.kv_heads, row % c.kv_heads, t, least(plan.tokens, c.queries - t));
            float *all = parts + (row * tiles + t / plan.tokens) * plan.pieces * sums;
            Sums joined, one;
            sums_of(&joined, all, height, dim);
            for (int64_t r = 0; r < tile.rows; r++) {
                float high = -INFINITY, sum = 0.0f;
                for (int64_t p = 0; p < plan.pieces; p++) high = fmaxf(high, joined.high[p * sums + r]);
                for (int64_t p = 0; p < plan.pieces; p++) {
                    sums_of(&one, all + p * sums, height, dim);
                    float *to = joined.o + r * dim, share = exp2f(one.high[r] - high);
                    sum += share * one.sum[r];
                    for (int64_t d = 0; d < dim; d += VL) {
                        vf before = p ? v_load(to + d) : v_set(0.0f);
                        v_store(to + d, v_fma(v_load(one.o + r * dim + d), v_set(share), before));
                    }
                }
                joined.high[r] = high;
                joined.sum[r] = sum;
            }
            write_tile(&tile, joined.o, joined.high, joined.sum);
        }
    free(parts);
    return failed;
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
    /* Add the halos: the gradients that runs found for keys before their own. */
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
