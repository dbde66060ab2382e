/* Tiles of attention whose products are in float32, whatever q, k and v are stored in. */

/* ---- small matrix products ---- */

/* C = A B, or C += A B with `add`; C is mr x nv vectors. A(r, k) is A[r * ar + k * ak], row k of B begins at B[k * ldb]. */
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

/* MR rows of C, `vectors` wide. across: A is transposed. */
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

/* ---- forward ---- */

/* A tile's rows of a tensor (B, N, H, D), times factor, in float32; zeros from the last row to `padded`. */
static void read_rows(const Tile *t, const void *base, const int64_t *stride, float factor, float *into) {
    const Call *c = t->call;
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t at = t->b * stride[0] + t->token[r] * stride[1] + t->head[r] * stride[2];
        for (int64_t d = 0; d < c->dim; d += VL) v_store(into + r * c->dim + d, get(base, at + d, c->q_type) * v_set(factor));
    }
    memset(into + t->rows * c->dim, 0, (size_t)((t->padded - t->rows) * c->dim) * 4);
}

/* A tile of a few rows reads keys and values once and in place: to transpose them would cost more than it gains. */

/* Prefetch a row that will be read soon. It may lie beyond the last one, since a prefetch never fails. */
INLINE void ahead(const void *base, int64_t at, int64_t dim, int64_t type) {
    const int64_t size = type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 1;
    for (int64_t d = 0; d < dim * size; d += 64) _mm_prefetch((const char *)base + at * size + d, _MM_HINT_T0);
}

/* Scores of LOT rows with keys first .. first + count, at most KEYS. Beyond count the last vector is 0. */
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
                    vf k = get(c->k, at + (j + i) * stride[1] + d, c->kv_type);
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
            vf a = get(c->v, at + j * stride[1] + d, c->kv_type) * scale;
            vf b = get(c->v, at + j * stride[1] + d + VL, c->kv_type) * scale;
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
                            get(c->v, at + j * stride[1] + d, c->kv_type), sum);
            v_store(o + r * dim + d, sum);
        }
}

/* Rows of q against keys low .. high: o += sum exp2(s - high) v, sum += sum exp2(s - high). */
static void forward_tile(const Tile *t, int64_t low, int64_t high, Ring *ring, Sums *s) {
    const Call *c = t->call;
    const int64_t dim = c->dim, across = dim / VL;
    int64_t begin, end;
    read_rows(t, c->q, c->q_stride, c->scale * LOG2E, s->q);
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
            if (now == -INFINITY) { /* no key seen so far */
                for (int64_t j = left; j < right; j += VL) v_store(row + j, v_set(0.0f));
                continue;
            }
            vf sum = v_set(0.0f), shift = v_set(now);
            for (int64_t j = left; j < right; j += VL) {
                vf p = v_exp2(v_load(row + j) - shift);
                v_store(row + j, p);
                sum += p;
            }
            add_keys(s, r, now, v_sum(sum), dim);
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
            if (missing) { /* the ring holds fewer blocks than a span */
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

/* Divide the sums of a tile, and write its outputs and log-sum-exps. */
static void write_tile(const Tile *t, const float *o, const float *high, const float *sum) {
    const Call *c = t->call;
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t at = place(c, t->b, t->token[r], t->head[r]);
        vf share = v_set(1.0f / sum[r]);
        for (int64_t d = 0; d < c->dim; d += VL) put(c->out, at + d, c->q_type, v_load(o + r * c->dim + d) * share);
        if (c->lse) c->lse[at / c->dim] = (high[r] + log2f(sum[r])) * LN2;
    }
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
            sum = v_fma(get(c->out, at + d, c->q_type), v_load(s->grad + r * dim + d), sum);
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
