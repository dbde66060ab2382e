/* Operations on rows between the matrix products of a layer: RMSNorm, SwiGLU and rotation, forward and backward; and the
 * softmax of a loss with its gradient. Each is one pass over memory and computes in float32.
 *
 * Rows are contiguous and a multiple of VL wide. Inputs and outputs are in float32 or bfloat16.
 */
#include "numbers.h"

#define SMALL (1 << 14) /* at most so many numbers are too few for several threads */
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL(numbers) PRAGMA(omp parallel for schedule(static) num_threads((int)threads) if (threads > 1 && (numbers) > SMALL))

/* out = x r gain, r = 1 / sqrt(mean(x^2) + eps). r goes into `inverse`, unless that is null. */
PUBLIC int miniwin_rmsnorm(const void *x, int64_t type, const float *gain, void *out, int64_t out_type, float *inverse,
                           int64_t rows, int64_t size, float eps, int64_t threads) {
    PARALLEL(rows * size)
    for (int64_t r = 0; r < rows; r++) {
        vf squares = v_set(0.0f);
        for (int64_t i = 0; i < size; i += VL) squares = v_fma(get(x, r * size + i, type), get(x, r * size + i, type), squares);
        float factor = 1.0f / sqrtf(v_sum(squares) / (float)size + eps);
        if (inverse) inverse[r] = factor;
        for (int64_t i = 0; i < size; i += VL)
            put(out, r * size + i, out_type, get(x, r * size + i, type) * v_set(factor) * v_load(gain + i));
    }
    return 0;
}

/* to_x = r (g gain) - x r^3 mean(g gain x), g = grad;  to_gain (chunks, size) += the sum of r x g over each chunk of rows. */
PUBLIC int miniwin_rmsnorm_backward(const void *x, int64_t type, const float *gain, const float *inverse, const void *grad,
                                    int64_t grad_type, void *to_x, float *to_gain, int64_t chunks, int64_t rows,
                                    int64_t size, int64_t threads) {
    PARALLEL(rows * size)
    for (int64_t c = 0; c < chunks; c++) {
        float *sums = to_gain + c * size;
        for (int64_t r = rows * c / chunks; r < rows * (c + 1) / chunks; r++) {
            const int64_t at = r * size;
            vf dot = v_set(0.0f), factor = v_set(inverse[r]);
            for (int64_t i = 0; i < size; i += VL) {
                vf product = get(x, at + i, type) * get(grad, at + i, grad_type);
                dot = v_fma(product, v_load(gain + i), dot);
                v_store(sums + i, v_fma(product, factor, v_load(sums + i)));
            }
            vf slope = v_set(-v_sum(dot) * inverse[r] * inverse[r] * inverse[r] / (float)size);
            for (int64_t i = 0; i < size; i += VL)
                put(to_x, at + i, type,
                    v_fma(get(x, at + i, type), slope, get(grad, at + i, grad_type) * v_load(gain + i) * factor));
        }
    }
    return 0;
}

/* 1 / (1 + e^-x). For very negative x it is about 2^-126 in place of less, which no sum in float32 shows. */
INLINE vf sigmoid(vf x) {
    vf power = x * v_set(-LOG2E);
    return v_set(1.0f) / (v_set(1.0f) + v_exp2(v_min(v_set(126.0f), power)));
}

/* out = silu(gate) up */
PUBLIC int miniwin_swiglu(const void *gate, const void *up, void *out, int64_t type, int64_t count, int64_t threads) {
    PARALLEL(count)
    for (int64_t i = 0; i < count; i += VL) {
        vf g = get(gate, i, type);
        put(out, i, type, g * sigmoid(g) * get(up, i, type));
    }
    return 0;
}

/* to_gate = grad up s (1 + gate (1 - s)),  to_up = grad gate s,  s = sigmoid(gate) */
PUBLIC int miniwin_swiglu_backward(const void *grad, const void *gate, const void *up, void *to_gate, void *to_up,
                                   int64_t type, int64_t count, int64_t threads) {
    PARALLEL(count)
    for (int64_t i = 0; i < count; i += VL) {
        vf g = get(gate, i, type), s = sigmoid(g), d = get(grad, i, type) * s;
        put(to_gate, i, type, d * get(up, i, type) * v_fma(g, v_set(1.0f) - s, v_set(1.0f)));
        put(to_up, i, type, d * g);
    }
    return 0;
}

/* Rotate channels c and c + half of x (B, N, H, D); with sense -1 backwards. stride: of the first three dimensions of x.
 * cos, sin: (B or 1, N, half), `step` numbers from one row of the batch to the next. out is contiguous. */
PUBLIC int miniwin_rotate(const void *x, int64_t type, const int64_t *stride, const float *cos, const float *sin,
                          int64_t step, void *out, int64_t batch, int64_t tokens, int64_t heads, int64_t dim,
                          int64_t half, float sense, int64_t threads) {
    PARALLEL(batch * tokens * heads * dim)
    for (int64_t t = 0; t < batch * tokens; t++) {
        const float *c = cos + t / tokens * step + t % tokens * half, *s = sin + t / tokens * step + t % tokens * half;
        for (int64_t h = 0; h < heads; h++) {
            int64_t from = t / tokens * stride[0] + t % tokens * stride[1] + h * stride[2], to = (t * heads + h) * dim;
            for (int64_t i = 0; i < half; i += VL) {
                vf a = get(x, from + i, type), b = get(x, from + half + i, type), sine = v_load(s + i) * v_set(sense);
                put(out, to + i, type, v_fma(a, v_load(c + i), -b * sine));
                put(out, to + half + i, type, v_fma(b, v_load(c + i), a * sine));
            }
            for (int64_t i = 2 * half; i < dim; i += VL) put(out, to + i, type, get(x, from + i, type));
        }
    }
    return 0;
}

/* to = x, or to += x with `add`: adds a product in bfloat16 to sums in float32. */
PUBLIC int miniwin_add(float *to, const void *x, int64_t type, int64_t count, int64_t add, int64_t threads) {
    PARALLEL(count)
    for (int64_t i = 0; i < count; i += VL) {
        vf before = add ? v_load(to + i) : v_set(0.0f);
        v_store(to + i, before + get(x, i, type));
    }
    return 0;
}

#define PART 512
#define HELD (1 << 14)
static _Thread_local float held[HELD]; /* the powers of a row that is not wider: they are computed only once */

/* losses[r] = log(sum exp(scale z)) - scale z_target. Overwrites the logits z with softmax(scale z) - onehot(target), the
 * gradient of the loss divided by scale. A row whose target is `ignored` becomes zeros, and its loss 0. */
PUBLIC int miniwin_softmax_loss(void *logits, int64_t type, int64_t rows, int64_t width, const int64_t *targets,
                                int64_t ignored, float scale, float *losses, int64_t threads) {
    PARALLEL(rows * width)
    for (int64_t r = 0; r < rows; r++) {
        const int64_t at = r * width, target = targets[r];
        float *powers = held; /* looked up once: its address depends on the thread */
        if (target == ignored) {
            for (int64_t i = 0; i < width; i += VL) put(logits, at + i, type, v_set(0.0f));
            losses[r] = 0.0f;
            continue;
        }
        const vf factor = v_set(scale * LOG2E);
        const float wanted = one(logits, at + target, type);
        vf highest = v_set(-INFINITY), sum = v_set(0.0f);
        for (int64_t i = 0; i < width; i += VL) highest = v_max(get(logits, at + i, type) * factor, highest);
        vf shift = v_set(-v_highest(highest));
        for (int64_t first = 0; first < width; first += PART) {
            vf part = v_set(0.0f); /* a sum of its own: thousands of small numbers would vanish beside the whole sum */
            for (int64_t i = first; i < width && i < first + PART; i += VL) {
                vf power = v_exp2(v_fma(get(logits, at + i, type), factor, shift));
                if (width <= HELD) v_store(powers + i, power);
                part += power;
            }
            sum += part;
        }
        const float share = 1.0f / v_sum(sum), gap = fmaf(wanted, scale * LOG2E, -v_highest(highest));
        for (int64_t i = 0; i < width; i += VL) {
            vf power = width <= HELD ? v_load(powers + i) : v_exp2(v_fma(get(logits, at + i, type), factor, shift));
            put(logits, at + i, type, power * v_set(share));
        }
        losses[r] = (log2f(v_sum(sum)) - gap) * LN2;
        const int64_t near = target / VL * VL;
        vf there = get(logits, at + near, type);
        float lanes[VL];
        v_store(lanes, there);
        lanes[target - near] = exp2f(gap) * share - 1.0f;
        put(logits, at + near, type, v_load(lanes));
    }
    return 0;
}
