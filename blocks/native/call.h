/* The call of an attention kernel. */
#ifndef MINIWIN_CALL_H
#define MINIWIN_CALL_H

#include <stdint.h>

/* Strides in elements; the last dimension is contiguous. Mirrored in attention.py. */
typedef struct {
    int64_t batch, queries, keys, heads, kv_heads, dim, window, threads, q_type, kv_type;
    int64_t q_stride[3], k_stride[3], v_stride[3]; /* batch, token, head */
    const void *q, *k, *v;
    const float *k_scale, *v_scale; /* of int8: (B, M, Hkv), contiguous in its last dimension */
    int64_t k_scale_stride[2], v_scale_stride[2];
    const int64_t *pad; /* (B,) or null: the first keys of a row, and the queries among them, do not exist */
    void *out;          /* (B, N, H, D), contiguous, in the type of q */
    float *lse;         /* (B, N, H) or null: log(sum exp(scores)) */
    const void *grad;   /* backward: (B, N, H, D), in the type of q */
    void *grad_q;       /* as grad */
    float *grad_k, *grad_v; /* (B, M, Hkv, D), zeros */
    float scale;
} Call;

#endif
