/* The few vector operations that the kernels are written in: AVX-512, or AVX2 with FMA. VL: floats of a vector. */
#ifndef MINIWIN_SIMD_H
#define MINIWIN_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__

#define VL 16
#define MR 8 /* rows of a micro-kernel: 8 x 2 sums and their operands fit into 32 registers */
typedef __m512 vf;

/* v_max and v_min give their second operand if either is NaN. */
INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
INLINE vf v_set(float x) { return _mm512_set1_ps(x); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE float v_highest(vf x) { return _mm512_reduce_max_ps(x); }
INLINE float v_sum(vf x) { return _mm512_reduce_add_ps(x); }
/* to[i] = the sum of x[i], for i = 0 .. 3: a third of the operations of four v_sum. */
INLINE void v_sum4(const vf *x, float *to) {
    vf a = _mm512_unpacklo_ps(x[0], x[1]) + _mm512_unpackhi_ps(x[0], x[1]);
    vf b = _mm512_unpacklo_ps(x[2], x[3]) + _mm512_unpackhi_ps(x[2], x[3]);
    __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
    vf lanes = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d)) + _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
    __m256 half = _mm512_castps512_ps256(lanes) + _mm512_extractf32x8_ps(lanes, 1);
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
INLINE vf v_round(vf x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* x * 2^n for integers n; 0 if that is too small. */
INLINE vf v_scale(vf x, vf n) { return _mm512_scalef_ps(x, n); }
INLINE vf v_of_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vf v_of_int8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* Rounds to nearest, ties to even. NaN stays NaN. */
INLINE void v_to_bf16(uint16_t *p, vf x) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x));
#else
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    bits = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
#endif
}
/* Transpose VL x VL numbers: blocks of 1, 2, 4, 8 change places. */
INLINE void v_turn(vf *r) {
#define STAGE(s)                                                                                                       \
    {                                                                                                                  \
        __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);                         \
        __mmask16 high = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(s));                                           \
        __m512i first = _mm512_mask_add_epi32(lane, high, lane, _mm512_set1_epi32(16 - s));                            \
        __m512i second = _mm512_mask_add_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(s)), high, lane,               \
                                               _mm512_set1_epi32(16));                                                 \
        _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++) if (!(i & s)) {                                          \
            vf a = r[i], b = r[i + s];                                                                                 \
            r[i] = _mm512_permutex2var_ps(a, first, b);                                                                \
            r[i + s] = _mm512_permutex2var_ps(a, second, b);                                                           \
        }                                                                                                              \
    }
    STAGE(1) STAGE(2) STAGE(4) STAGE(8)
#undef STAGE
}

#else /* AVX2 and FMA */

#define VL 8
#define MR 4
typedef __m256 vf;

INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf v_set(float x) { return _mm256_set1_ps(x); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE float v_highest(vf x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}
INLINE float v_sum(vf x) {
    __m128 m = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_add_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_add_ss(m, _mm_shuffle_ps(m, m, 1)));
}
INLINE void v_sum4(const vf *x, float *to) {
    vf a = _mm256_unpacklo_ps(x[0], x[1]) + _mm256_unpackhi_ps(x[0], x[1]);
    vf b = _mm256_unpacklo_ps(x[2], x[3]) + _mm256_unpackhi_ps(x[2], x[3]);
    __m256d c = _mm256_castps_pd(a), d = _mm256_castps_pd(b);
    vf lanes = _mm256_castpd_ps(_mm256_unpacklo_pd(c, d)) + _mm256_castpd_ps(_mm256_unpackhi_pd(c, d));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1)));
}
INLINE vf v_round(vf x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf v_scale(vf x, vf n) {
    __m256 normal = _mm256_cmp_ps(n, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ);
    __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(power)), normal);
}
INLINE vf v_of_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE vf v_of_int8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE void v_to_bf16(uint16_t *p, vf x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256 unknown = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    up = _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7fc00000), _mm256_castps_si256(unknown));
    bits = _mm256_srli_epi32(up, 16);
    __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    _mm_storeu_si128((__m128i *)p, narrow);
}
INLINE void v_turn(vf *r) {
    vf t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    vf s[8];
    for (int i = 0; i < 8; i += 4) {
        s[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        s[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        s[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        s[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x31);
    }
}

#endif

/* 2^x for x <= 127: 2^n times the Taylor series of e^(f ln 2), |f| <= 1/2, whose error is below 2e-8. 0 for -inf. */
INLINE vf v_exp2(vf x) {
    x = v_max(v_set(-1000.0f), x); /* in this order NaN stays NaN */
    vf n = v_round(x), f = (x - n) * v_set(0.69314718056f);
    vf y = v_set(1.0f / 5040);
    y = v_fma(y, f, v_set(1.0f / 720));
    y = v_fma(y, f, v_set(1.0f / 120));
    y = v_fma(y, f, v_set(1.0f / 24));
    y = v_fma(y, f, v_set(1.0f / 6));
    y = v_fma(y, f, v_set(0.5f));
    y = v_fma(y, f, v_set(1.0f));
    y = v_fma(y, f, v_set(1.0f));
    return v_scale(y, n);
}

#endif
