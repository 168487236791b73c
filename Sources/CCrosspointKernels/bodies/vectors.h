// The 16-lane vocabulary that every body is written in. Included once per variant, before the bodies.
#include "../include/CCrosspointKernels.h"

#pragma clang fp contract(off)
#pragma clang diagnostic ignored "-Wpsabi"

#define LANES 16
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef float vf_any __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t vi_any __attribute__((vector_size(64), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) { return *(const vf_any *)p; }
INLINE void store(float *p, vf v) { *(vf_any *)p = v; }
INLINE vf splat(float a) { return (vf){} + a; }

// a + s * b, where s is +-1 throughout: the product is exact, so that fused or not the sum is rounded once.
// Which of two NaNs it gives may differ.
INLINE vf add_signed(vf a, vf b, vf s) {
#ifdef VARIANT_FUSES
  return __builtin_elementwise_fma(b, s, a);
#else
  return a + b * s;
#endif
}

// The last n mod 16 floats, zeros beyond: a tail is reduced like any other block.
INLINE vf load_tail(const float *p, size_t count) {
  vf v = {};
  for (size_t i = 0; i < count; i++) v[i] = p[i];
  return v;
}

INLINE void store_tail(float *p, vf v, size_t count) {
  for (size_t i = 0; i < count; i++) p[i] = v[i];
}

// Sum of 16 lanes as a fixed binary tree.
INLINE float sum(vf v) {
  for (int step = LANES / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) v[i] = v[i] + v[i + step];
  return v[0];
}
