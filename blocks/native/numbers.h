/* Numbers in memory, in each type that the kernels take, a vector at a time. */
#ifndef MINIWIN_NUMBERS_H
#define MINIWIN_NUMBERS_H

#include "simd.h"

#include <math.h>

#define LOG2E 1.44269504089f
#define LN2 0.69314718056f
#define PUBLIC __attribute__((visibility("default")))

enum { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 }; /* CODES in __init__.py */

INLINE vf get(const void *base, int64_t at, int64_t type) {
    if (type == FLOAT32) return v_load((const float *)base + at);
    if (type == BFLOAT16) return v_of_bf16((const uint16_t *)base + at);
    return v_of_int8((const int8_t *)base + at);
}

INLINE void put(void *base, int64_t at, int64_t type, vf x) {
    if (type == FLOAT32) v_store((float *)base + at, x);
    else v_to_bf16((uint16_t *)base + at, x);
}

INLINE float one(const void *base, int64_t at, int64_t type) {
    if (type == FLOAT32) return ((const float *)base)[at];
    union { uint32_t bits; float value; } u = {(uint32_t)((const uint16_t *)base)[at] << 16};
    return u.value;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
