/* Kernels that step.c calls. Their own files say what they compute. */
#ifndef MINIWIN_KERNELS_H
#define MINIWIN_KERNELS_H

#include "call.h"

int miniwin_attention_forward(const Call *call);
int miniwin_rmsnorm(const void *x, int64_t type, const float *gain, void *out, int64_t out_type, float *inverse,
                    int64_t rows, int64_t size, float eps, int64_t threads);
int miniwin_swiglu(const void *gate, const void *up, void *out, int64_t type, int64_t count, int64_t threads);
int miniwin_rotate(const void *x, int64_t type, const int64_t *stride, const float *cos, const float *sin, int64_t step,
                   void *out, int64_t batch, int64_t tokens, int64_t heads, int64_t dim, int64_t half, float sense,
                   int64_t threads);

#endif
