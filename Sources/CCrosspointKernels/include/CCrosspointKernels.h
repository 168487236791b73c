// SIMD kernels of Crosspoint: one table of functions per instruction set, chosen once at run time.
//
// Every kernel gives the same bits in every variant: bodies are written once, over vectors of 16 lanes, with a fixed
// order of operations and no fused multiply-add. Rows are contiguous floats; n is the number of floats; no alignment is
// required; pointers named out may not overlap others unless said.
#ifndef CCROSSPOINT_KERNELS_H
#define CCROSSPOINT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum xp_variant { XP_SCALAR = 0, XP_AVX2 = 1, XP_AVX512 = 2, XP_NEON = 3 } xp_variant;

typedef struct xp_kernels {
  const char *name;

  // Rows (rows.h)
  void (*scale)(float *out, float a, const float *x, size_t n);                            // out = a x   (out may be x)
  void (*axpy)(float *out, float a, const float *x, size_t n);                             // out += a x
  void (*axpy_difference)(float *out, float a, const float *x, const float *c, size_t n);  // out += a (x - c)
  float (*dot)(const float *x, const float *y, size_t n);                                  // <x, y>
  float (*dot_difference)(const float *y, const float *x, const float *c, size_t n);       // <y, x - c>
  float (*squared_distance)(const float *x, const float *c, size_t n);                     // |x - c|^2
  size_t (*first_nonfinite)(const float *x, size_t n);                                     // index, or n if all are finite
} xp_kernels;

// The variant's table, or NULL where this build or this processor lacks it.
const xp_kernels *xp_kernels_variant(xp_variant variant);

// The best table for this processor. CROSSPOINT_KERNELS=scalar|avx2|avx512|neon in the environment forces one
// (an unknown or unavailable name is ignored; xpoint doctor reports the choice).
const xp_kernels *xp_kernels_best(void);

#endif
