/* A decoding step: one new token for each of a few rows, or a few new tokens of one row, through all layers of a decoder in
 * one call. From Python, calling some twenty operations a layer would take longer than computing them. Rows share a cache,
 * padded at the front, or are contexts: each has caches of its own, of any length.
 *
 *     h += post(O attention(rotate(norm(Q n)), cache)),  n = pre(h);    h += post'(Down(silu(Gate n') Up n')),  n' = pre'(h)
 *
 * Computes in float32; caches are in float32, bfloat16 or int8. Each operation is a kernel of its own, described in its file.
 *
 * Several tokens of one row pass through the matrices together, which are read once for all of them, and through the cache
 * one after another. So logits and cache are those of as many steps, to the last bit.
 *
 * Contexts of a small model are shared out among the threads, which then need not wait for each other within a step. The
 * matrices of a large one are shared out, so that they are read from memory once.
 */
#include "few_product.h"
#include "kernels.h"

#include <float.h>
#include <string.h>

#define NEAR (1 << 22)  /* numbers in the matrices of a model that is small: they stay in the processor's caches */
#define SHORT (1 << 16) /* numbers in the keys of a cache: up to here one thread is the fastest */

typedef struct {
    const float *gain; /* null: no norm */
    float eps;
} Norm;

/* Neighbouring key/value heads of a layer, with a cache of their own: all of them, unless heads see differently. Mirrored
 * in step.py. */
typedef struct {
    void *keys, *values;      /* the cache; k_stride, v_stride: of rows, slots and heads */
    float *k_scale, *v_scale; /* of int8: (rows, slots, heads); k_scale_stride, v_scale_stride: of rows and slots */
    const int64_t *pad;       /* (rows,) or null: how many slots of each row, the first ones, are padding */
    /* slot: the next token's, the first one's of several. entries: the number of filled slots, that token's included.
     * slots: of the cache, in which the tokens after it go round. most: filled slots, at most. A step moves slot and
     * entries on to the token after its own. */
    int64_t k_stride[3], v_stride[3], k_scale_stride[2], v_scale_stride[2], kv_type, slot, entries, slots, most;
    int64_t first, count; /* of the layer's key/value heads, the first one that is meant, and how many are */
} Held;

/* Mirrored in step.py. */
typedef struct {
    Matrix q, k, v, o, gate, up, down;
    Norm attention_norm, attention_post_norm, mlp_norm, mlp_post_norm, q_norm, k_norm;
    const float *cos, *sin;   /* (half,), or (rows, half) if angle_step is half; or null: no rotation */
    const float *query_scale; /* (heads,), or (rows, heads) if scale_step is heads; or null */
    int64_t held, helds; /* of the caches of a context, the layer's first one, and how many are the layer's */
    int64_t heads, kv_heads, dim, half, angle_step, scale_step;
    float score_scale;
} LayerStep;

/* norm(x): written into `into`, or x itself if there is no norm. */
static const float *normed(const Norm *norm, const float *x, float *into, int64_t rows, int64_t size, int64_t threads) {
    if (!norm->gain) return x;
    miniwin_rmsnorm(x, FLOAT32, norm->gain, into, FLOAT32, NULL, rows, size, norm->eps, threads);
    return into;
}

/* h += norm(W x) */
static void onto(float *h, const float *x, const Matrix *w, const Norm *norm, float *room, int64_t rows, int64_t threads) {
    if (!norm->gain) {
        few_product(x, FLOAT32, w, h, rows, 1, threads);
        return;
    }
    few_product(x, FLOAT32, w, room, rows, 0, threads);
    normed(norm, room, room, rows, w->outs, threads);
    for (int64_t i = 0; i < rows * w->outs; i++) h[i] += room[i];
}

/* Rotate the heads of x in place, if the layer has a rotation. from: the row of the step that x begins with. */
static void turned(const LayerStep *l, float *x, int64_t heads, int64_t from, int64_t rows, int64_t threads) {
    const int64_t stride[3] = {heads * l->dim, heads * l->dim, l->dim}, at = from * l->angle_step;
    if (l->cos)
        miniwin_rotate(x, FLOAT32, stride, l->cos + at, l->sin + at, l->angle_step, x, rows, 1, heads, l->dim, l->half, 1.0f,
                       threads);
}

/* Round to int8 as blocks/int8/rows.py does. Returns the scale, max |x| / 127. */
static float rounded(const float *x, int8_t *to, int64_t dim) {
    float most = 0.0f;
    for (int64_t d = 0; d < dim; d++) most = fmaxf(most, fabsf(x[d]));
    const float scale = most / 127, step = fmaxf(scale, FLT_MIN);
    for (int64_t d = 0; d < dim; d++) to[d] = (int8_t)fmaxf(-127.0f, fminf(127.0f, nearbyintf(x[d] / step)));
    return scale;
}

/* Store keys or values x (rows, kv_heads, dim) of these heads in a slot. */
static void stored(const LayerStep *l, const Held *c, int64_t slot, const float *x, void *held, const int64_t *stride,
                   float *scale, const int64_t *scale_stride, int64_t rows) {
    for (int64_t b = 0; b < rows; b++)
        for (int64_t h = 0; h < c->count; h++) {
            const float *from = x + (b * l->kv_heads + c->first + h) * l->dim;
            const int64_t at = b * stride[0] + slot * stride[1] + h * stride[2];
            if (c->kv_type == INT8)
                scale[b * scale_stride[0] + slot * scale_stride[1] + h] = rounded(from, (int8_t *)held + at, l->dim);
            else
                for (int64_t d = 0; d < l->dim; d += VL) put(held, at + d, c->kv_type, v_load(from + d));
        }
}

/* The attention of new tokens over one cache of a layer: token t of several, or one token of each row. q: of its heads. */
static int over(const LayerStep *l, const Held *c, int64_t t, const float *q, const float *k, const float *v, float *to,
                int64_t rows, int64_t threads) {
    const int64_t sharing = l->heads / l->kv_heads, wide = l->heads * l->dim;
    const int64_t slot = (c->slot + t) % c->slots, entries = least(c->entries + t, c->most);
    stored(l, c, slot, k, c->keys, c->k_stride, c->k_scale, c->k_scale_stride, rows);
    stored(l, c, slot, v, c->values, c->v_stride, c->v_scale, c->v_scale_stride, rows);
    Call call = {
        .batch = rows, .queries = 1, .keys = entries, .heads = c->count * sharing, .kv_heads = c->count,
        .dim = l->dim, .window = entries, .threads = threads, .q_type = FLOAT32, .kv_type = c->kv_type,
        .q_stride = {wide, wide, l->dim}, .q = q, .k = c->keys, .v = c->values, .out = to,
        .scale = l->score_scale, .k_scale = c->k_scale, .v_scale = c->v_scale, .pad = c->pad,
    };
    memcpy(call.k_stride, c->k_stride, sizeof call.k_stride);
    memcpy(call.v_stride, c->v_stride, sizeof call.v_stride);
    memcpy(call.k_scale_stride, c->k_scale_stride, sizeof call.k_scale_stride);
    memcpy(call.v_scale_stride, c->v_scale_stride, sizeof call.v_scale_stride);
    return miniwin_attention_forward(&call);
}

/* The attention of the new tokens of a context over its caches of a layer: q (tokens x rows, heads, dim) -> out, likewise.
 * Either tokens or rows is 1. some: as large as out, if there are several caches. Returns whether memory was refused. */
static int attended(const LayerStep *l, Held *held, const float *q, const float *k, const float *v, float *out, float *some,
                    int64_t rows, int64_t tokens, int64_t threads) {
    const int64_t sharing = l->heads / l->kv_heads, wide = l->heads * l->dim, narrow = l->kv_heads * l->dim;
    for (Held *c = held; c < held + l->helds; c++) {
        const int64_t first = c->first * sharing * l->dim, size = c->count * sharing * l->dim;
        const int64_t used = rows * c->entries * c->count * l->dim <= SHORT ? 1 : threads;
        for (int64_t t = 0; t < tokens; t++) {
            float *mine = out + t * wide, *to = size == wide ? mine : some;
            if (over(l, c, t, q + t * wide + first, k + t * narrow, v + t * narrow, to, rows, used)) return 1;
            for (int64_t b = 0; to != mine && b < rows; b++)
                memcpy(mine + b * wide + first, to + b * size, (size_t)size * sizeof *out);
        }
        c->slot = (c->slot + tokens) % c->slots;
        c->entries = least(c->entries + tokens, c->most);
    }
    return 0;
}

/* A decoder, and the new tokens of contexts. */
typedef struct {
    const LayerStep *layers;
    const Norm *norm;
    const Matrix *head;
    Held *const *held; /* of each context: its caches, layer after layer */
    float *h;          /* (rows, size), overwritten */
    float *logits;     /* (rows, head->outs), or null: not wanted */
    float *room;       /* working memory, for each row as many floats as `floats` */
    int64_t count, contexts, rows, tokens, size, floats;
} Step;

/* The contexts from `first` to `end` through all layers and the head. Returns whether memory was refused. */
static int stepped(const Step *s, int64_t first, int64_t end, int64_t threads) {
    const int64_t each = s->rows / s->contexts, rows = (end - first) * each, from = first * each, size = s->size;
    float *h = s->h + from * size, *room = s->room + from * s->floats;
    for (const LayerStep *l = s->layers; l < s->layers + s->count; l++) {
        const int64_t wide = l->heads * l->dim, narrow = l->kv_heads * l->dim;
        float *x = room, *q = x + rows * size, *k = q + rows * wide, *v = k + rows * narrow, *out = v + rows * narrow;
        const float *n = normed(&l->attention_norm, h, x, rows, size, threads);
        few_product(n, FLOAT32, &l->q, q, rows, 0, threads);
        few_product(n, FLOAT32, &l->k, k, rows, 0, threads);
        few_product(n, FLOAT32, &l->v, v, rows, 0, threads);
        normed(&l->q_norm, q, q, rows * l->heads, l->dim, threads);
        normed(&l->k_norm, k, k, rows * l->kv_heads, l->dim, threads);
        turned(l, q, l->heads, from, rows, threads);
        turned(l, k, l->kv_heads, from, rows, threads);
        for (int64_t i = 0; l->query_scale && i < rows * wide; i++)
            q[i] *= l->query_scale[(from + i / wide) * l->scale_step + i / l->dim % l->heads];
        for (int64_t c = first; c < end; c++) {
            const int64_t at = (c - first) * each;
            if (attended(l, s->held[c] + l->held, q + at * wide, k + at * narrow, v + at * narrow, out + at * wide,
                         out + rows * wide, each / s->tokens, s->tokens, threads))
                return 1;
        }
        onto(h, out, &l->o, &l->attention_post_norm, x, rows, threads);
        n = normed(&l->mlp_norm, h, x, rows, size, threads);
        float *gate = room + rows * size, *up = gate + rows * l->gate.outs;
        few_product(n, FLOAT32, &l->gate, gate, rows, 0, threads);
        few_product(n, FLOAT32, &l->up, up, rows, 0, threads);
        miniwin_swiglu(gate, up, gate, FLOAT32, rows * l->gate.outs, threads);
        onto(h, gate, &l->down, &l->mlp_post_norm, x, rows, threads);
    }
    if (!s->logits) return 0;
    float *logits = s->logits + from * s->head->outs;
    few_product(normed(s->norm, h, room, rows, size, threads), FLOAT32, s->head, logits, rows, 0, threads);
    return 0;
}

static int64_t numbers(const Matrix *w) { return w->outs * w->columns; }

/* Whether the contexts, rather than the matrices, are to be shared out among threads: the matrices are small, and so is
 * every cache beside them, or a thread with a long one would work when the others have ended. */
static int apart(const Step *s) {
    int64_t all = numbers(s->head);
    for (const LayerStep *l = s->layers; l < s->layers + s->count; l++) {
        const Matrix *of[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (int i = 0; i < 7; i++) all += numbers(of[i]);
    }
    for (int64_t c = 0; c < s->contexts; c++) {
        int64_t keys = 0;
        for (const LayerStep *l = s->layers; l < s->layers + s->count; l++)
            for (const Held *held = s->held[c] + l->held; held < s->held[c] + l->held + l->helds; held++)
                keys += held->entries * held->count * l->dim;
        if (keys > all / 2) return 0;
    }
    return all <= NEAR;
}

/* tokens: how many new ones each context has that follow each other; its rows, or else 1. */
PUBLIC int miniwin_step(const Step *step, int64_t threads) {
    const Step s = *step;
    const int64_t shares = least(threads, s.contexts);
    if (shares < 2 || !apart(&s)) return stepped(&s, 0, s.contexts, threads);
    int failed = 0;
#pragma omp parallel for schedule(static, 1) num_threads((int)shares) reduction(| : failed)
    for (int64_t i = 0; i < shares; i++)
        failed |= stepped(&s, s.contexts * i / shares, s.contexts * (i + 1) / shares, 1);
    return failed;
}
