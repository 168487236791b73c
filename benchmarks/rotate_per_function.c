// The baseline of benchmarks/hash: cross-polytope hashing as it is usually written, one pseudo-rotation per function.
//
// For every function the row is copied, zero-padded to a power of two, and put through the rounds: random signs, then a
// Walsh-Hadamard transform. The id is the place of the largest magnitude, plus the size if that coordinate is negative.
// The transform is in the manner of FFHT (Andoni et al., arXiv 1509.02897, section 6): the six lower bits of the index are
// mixed in eight AVX registers, the upper ones four at a time across sixteen, so that 1024 floats take two sweeps. Compiled
// with -O3 for the machine at hand, and free to fuse multiplications; elsewhere than on AVX the compiler makes what it can
// of plain loops.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX__)
#include <immintrin.h>

static inline __attribute__((always_inline)) void butterfly(__m256 *a, __m256 *b) {
  __m256 sum = _mm256_add_ps(*a, *b);
  *b = _mm256_sub_ps(*a, *b);
  *a = sum;
}

// Mixes the three bits of the lane index.
static inline __attribute__((always_inline)) __m256 lanes(__m256 v) {
  const __m256 odd = _mm256_castsi256_ps(_mm256_set_epi32(INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0, INT32_MIN, 0));
  const __m256 pairs = _mm256_castsi256_ps(_mm256_set_epi32(INT32_MIN, INT32_MIN, 0, 0, INT32_MIN, INT32_MIN, 0, 0));
  const __m256 upper = _mm256_castsi256_ps(_mm256_set_epi32(INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN, 0, 0, 0, 0));
  v = _mm256_add_ps(_mm256_permute_ps(v, 0xB1), _mm256_xor_ps(v, odd));
  v = _mm256_add_ps(_mm256_permute_ps(v, 0x4E), _mm256_xor_ps(v, pairs));
  return _mm256_add_ps(_mm256_permute2f128_ps(v, v, 0x01), _mm256_xor_ps(v, upper));
}

// Mixes `count` registers, `stride` floats apart.
static inline __attribute__((always_inline)) void registers(float *x, size_t stride, int count, int within) {
  __m256 v[16];
#pragma GCC unroll 16
  for (int i = 0; i < count; i++) v[i] = _mm256_loadu_ps(x + i * stride);
  if (within)
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) v[i] = lanes(v[i]);
#pragma GCC unroll 4
  for (int step = 1; step < count; step *= 2)
#pragma GCC unroll 16
    for (int i = 0; i < count; i++)
      if (!(i & step)) butterfly(&v[i], &v[i | step]);
#pragma GCC unroll 16
  for (int i = 0; i < count; i++) _mm256_storeu_ps(x + i * stride, v[i]);
}

static void hadamard(float *x, size_t n) {
  if (n < 64) {
    for (size_t step = 1; step < n; step *= 2)
      for (size_t i = 0; i < n; i++)
        if (!(i & step)) {
          float a = x[i], b = x[i | step];
          x[i] = a + b, x[i | step] = a - b;
        }
    return;
  }
  for (size_t i = 0; i < n; i += 64) registers(x + i, 8, 8, 1);
  for (size_t step = 64; step < n;) {
    size_t count = n / step < 16 ? n / step : 16;
    for (size_t i = 0; i < n; i += count * step)
      for (size_t k = i; k < i + step; k += 8) switch (count) {
          case 2: registers(x + k, step, 2, 0); break;
          case 4: registers(x + k, step, 4, 0); break;
          case 8: registers(x + k, step, 8, 0); break;
          default: registers(x + k, step, 16, 0); break;
        }
    step *= count;
  }
}
#else
static void hadamard(float *x, size_t n) {
  for (size_t step = 1; step < n; step *= 2)
    for (size_t i = 0; i < n; i += 2 * step)
      for (size_t k = i; k < i + step; k++) {
        float a = x[k], b = x[k + step];
        x[k] = a + b, x[k + step] = a - b;
      }
}
#endif

static uint32_t scalar_argmax(const float *x, size_t n) {
  size_t where = 0;
  for (size_t i = 1; i < n; i++)
    if (fabsf(x[i]) > fabsf(x[where])) where = i;
  return (uint32_t)(x[where] < 0 ? where + n : where);
}

// Eight candidates at a time, in a form that compilers vectorise; then the largest of the eight.
static uint32_t vector_argmax(const float *x, size_t n) {
  if (n < 8) return scalar_argmax(x, n);
  float most[8];
  int32_t where[8];
  for (int lane = 0; lane < 8; lane++) most[lane] = fabsf(x[lane]), where[lane] = lane;
  for (size_t i = 8; i < n; i += 8)
    for (int lane = 0; lane < 8; lane++) {
      float size = fabsf(x[i + lane]);
      int larger = size > most[lane];
      most[lane] = larger ? size : most[lane];
      where[lane] = larger ? (int32_t)i + lane : where[lane];
    }
  int best = 0;
  for (int lane = 1; lane < 8; lane++)
    if (most[lane] > most[best] || (most[lane] == most[best] && where[lane] < where[best])) best = lane;
  return (uint32_t)(x[where[best]] < 0 ? where[best] + (int32_t)n : where[best]);
}

// The ids [count x functions] of rows [count x hidden]. signs holds +-1: [functions x rounds x p], and scratch room for p
// floats, where p is the smallest power of two that is at least hidden.
void rotate_per_function(uint32_t *ids, const float *rows, size_t count, size_t hidden, size_t functions, size_t rounds,
                         const float *signs, float *scratch, int vectorised) {
  size_t p = 1;
  while (p < hidden) p *= 2;
  for (size_t row = 0; row < count; row++)
    for (size_t function = 0; function < functions; function++) {
      memcpy(scratch, rows + row * hidden, hidden * sizeof *scratch);
      memset(scratch + hidden, 0, (p - hidden) * sizeof *scratch);
      for (size_t round = 0; round < rounds; round++) {
        const float *mine = signs + (function * rounds + round) * p;
        for (size_t i = 0; i < p; i++) scratch[i] *= mine[i];
        hadamard(scratch, p);
      }
      ids[row * functions + function] = vectorised ? vector_argmax(scratch, p) : scalar_argmax(scratch, p);
    }
}
