// The 16-lane vocabulary that every body is written in. Included once per variant, before the bodies.
#include "../include/CCrosspointKernels.h"

#pragma clang fp contract(off)
#pragma clang diagnostic ignored "-Wpsabi"

#define LANES 16
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint8_t vb __attribute__((vector_size(16)));
typedef float vf_any __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t vb_any __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint32_t word_any __attribute__((may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) { return *(const vf_any *)p; }
INLINE void store(float *p, vf v) { *(vf_any *)p = v; }
INLINE vf splat(float a) { return (vf){} + a; }
INLINE vu choose(vu mask, vu yes, vu no) { return (mask & yes) | (~mask & no); }

// a + s * b, where s is +-1 throughout: the product is exact, so that fused or not the sum is rounded once.
// Which of two NaNs it gives may differ.
INLINE vf add_signed(vf a, vf b, vf s) {
#ifdef VARIANT_FUSES
  return __builtin_elementwise_fma(b, s, a);
#else
  return a + b * s;
#endif
}

INLINE vu lanes_below(size_t count) {
  const vu lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return (vu)(lane < (uint32_t)count);
}

// One bit for each lane of a mask.
INLINE uint32_t mask_bits(vu mask) {
#if defined(VARIANT_AVX512)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(VARIANT_AVX2)
  __m256i half[2];
  __builtin_memcpy(half, &mask, sizeof half);
  return (uint32_t)_mm256_movemask_ps((__m256)half[0]) | (uint32_t)_mm256_movemask_ps((__m256)half[1]) << 8;
#else
  uint32_t bits = 0;
  for (int i = 0; i < LANES; i++) bits |= (mask[i] & 1) << i;
  return bits;
#endif
}

// How many lanes of a mask are set.
INLINE size_t count_lanes(vu mask) {
#if defined(VARIANT_AVX512) || defined(VARIANT_AVX2)
  return (size_t)__builtin_popcount(mask_bits(mask));
#else
  return (size_t)-__builtin_reduce_add((vi)mask);
#endif
}

// The last n mod 16 floats, zeros beyond: a tail is reduced like any other block.
INLINE vf load_tail(const float *p, size_t count) {
#if defined(VARIANT_AVX512)
  return (vf)_mm512_maskz_loadu_ps(_mm512_movepi32_mask((__m512i)lanes_below(count)), p);
#else
  vf v = {};
  __builtin_memcpy(&v, p, count * sizeof *p);
  return v;
#endif
}

INLINE void store_tail(float *p, vf v, size_t count) {
#if defined(VARIANT_AVX512)
  _mm512_mask_storeu_ps(p, _mm512_movepi32_mask((__m512i)lanes_below(count)), (__m512)v);
#else
  __builtin_memcpy(p, &v, count * sizeof *p);
#endif
}

// Sum of 16 lanes as a fixed binary tree.
INLINE float sum(vf v) {
  for (int step = LANES / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) v[i] = v[i] + v[i + step];
  return v[0];
}
