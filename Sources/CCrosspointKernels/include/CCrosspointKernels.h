// SIMD kernels of Crosspoint: one table of functions per instruction set, chosen once at run time.
//
// Every kernel gives the same bits in every variant: bodies are written once, over vectors of 16 lanes, with a fixed
// order of operations; a multiplication is fused with an addition only where its product is exact. (Which of two NaNs
// comes out may differ.) Rows are contiguous floats; n is the number of floats; no alignment is required; pointers named
// out may not overlap others unless said.
#ifndef CCROSSPOINT_KERNELS_H
#define CCROSSPOINT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum xp_variant { XP_SCALAR = 0, XP_AVX2 = 1, XP_AVX512 = 2, XP_NEON = 3 } xp_variant;

// Plain bits under way (codec_entropy.h); eight bytes behind bits are written too.
typedef struct xp_entropy_writer {
  uint8_t *bits;
  uint64_t buffer;
  int32_t count;
} xp_entropy_writer;

// A body being read. Tables per context: 2048 slots (token, frequency - 1 << 6, place within the token's slots << 17) and 64
// levels, what tokens stand for.
typedef struct xp_entropy_decoder {
  uint32_t states[16];
  const uint8_t *words, *words_end;  // of the tokens
  const uint8_t *bits, *bits_end;    // plain
  uint64_t buffer;
  int32_t count;
  const uint32_t *slots;
  const float *levels;
  uint64_t overrun, beyond;  // words and bytes that were asked for and did not exist
} xp_entropy_decoder;

// Class of column + offset, kept in 0...last, shifted, counted from context first.
typedef struct xp_entropy_scale {
  int32_t offset, last, shift, first;
} xp_entropy_scale;

typedef struct xp_kernels {
  const char *name;

  // Rows (rows.h)
  void (*scale)(float *out, float a, const float *x, size_t n);                            // out = a x   (out may be x)
  void (*axpy)(float *out, float a, const float *x, size_t n);                             // out += a x
  void (*axpy_difference)(float *out, float a, const float *x, const float *c, size_t n);  // out += a (x - c)
  float (*centre)(float *out, const float *x, const float *mean, size_t n);                // out = x - mean (x for NULL); |out|^2
  float (*accumulate)(float *out, const float *x, size_t n);                               // out += x; |x|^2
  float (*dot)(const float *x, const float *y, size_t n);                                  // <x, y>
  float (*dot_difference)(const float *y, const float *x, const float *c, size_t n);       // <y, x - c>
  float (*squared_distance)(const float *x, const float *c, size_t n);                     // |x - c|^2
  void (*axpy_squares)(float *out, float a, const float *x, size_t n);                     // out += (a x)^2
  float (*weighted_squares)(const float *x, const float *w, size_t n);                     // |w x|^2
  size_t (*first_nonfinite)(const float *x, size_t n);                                     // index, or n if all are finite
  float (*sum_of_largest)(const float *x, size_t n, size_t k);                             // of the k largest; all x >= 0

  // The pseudo-rotation of one row (hadamard.h); out may be x. With p the largest power of two within n, signs holds for
  // each round p values +-1 / sqrt p for the first p floats and, if n > p, as many for the last p. Ahead is NULL or a row
  // that is wanted next: it is brought into the cache meanwhile.
  void (*rotate)(float *out, const float *x, const float *signs, size_t n, int rounds, const float *ahead);
  void (*rotate_back)(float *out, const float *x, const float *signs, size_t n, int rounds);

  // Rows of n floats, one behind the other, each less sum over j < k of <row, w_j> v_j (reflect.h); k at most 512.
  void (*reflect)(float *rows, size_t count, const float *w, const float *v, size_t k, size_t n);

  // Cross-polytope ids (hash.h) of y, or of y - mean unless mean is NULL; function f looks at y[f * width ..< (f + 1) * width].
  void (*cross_polytope)(uint32_t *ids, const float *y, const float *mean, size_t width, size_t functions);

  // The nearest centroid to x (nearest.h); half_norms holds |c|^2 / 2 of each.
  size_t (*nearest)(const float *x, const float *centroids, const float *half_norms, size_t count, size_t n);

  // Checksum of frames (codec_checksum.h): 64 lanes, zero at the start, absorb multiples of 256 bytes; the last call
  // takes the tail of fewer than 256 bytes and the number of bytes in all.
  void (*checksum_absorb)(uint32_t *lanes, const void *bytes, size_t n);
  uint64_t (*checksum_finish)(const uint32_t *lanes, const void *tail, size_t n, uint64_t total);

  // Rows as smaller floats (codec_floats.h): encode x * factor; decode and multiply by factor.
  void (*bf16_encode)(void *out, const float *x, size_t n, float factor);
  void (*bf16_decode)(float *out, const void *in, size_t n, float factor);
  size_t (*bf16_first_nonfinite)(const void *in, size_t n);  // index, or n if all are finite
  void (*fp16_encode)(void *out, const float *x, size_t n, float factor);
  void (*fp16_decode)(float *out, const void *in, size_t n, float factor);
  void (*e4m3_encode)(void *out, const float *x, size_t n, float factor);
  void (*e4m3_decode)(float *out, const void *in, size_t n, float factor);

  // Rows as packed codes of 1 to 8 bits (codec_bits.h); x and factor must be finite, n codes take bits * ceil(n / 8)
  // bytes. Lloyd-Max: the sign of x and, below it, the whole part of a polynomial of |x * factor|, whose cap and coefficients
  // (of degree 1, 3, 3, 4, 4, 5, 6 for 2 to 8 bits) are the compander; level[code] * factor, from a table of at least 16
  // whose second half negates the first. Uniform: round((x - low) / step).
  void (*lloyd_max_encode)(void *out, const float *x, size_t n, int32_t bits, float factor, const float *compander);
  void (*lloyd_max_decode)(float *out, const void *in, size_t n, int32_t bits, float factor, const float *levels);
  void (*uniform_encode)(void *out, const float *x, size_t n, int32_t bits, float low, float step);
  void (*uniform_decode)(float *out, const void *in, size_t n, int32_t bits, float low, float step);
  float (*largest_magnitude)(const float *x, size_t n);  // NaN if any is NaN, 0 for n = 0
  void (*smallest_and_largest)(const float *x, size_t n, float *smallest, float *largest);

  // By the row's key (codec_dither.h); out may be x: x plus even noise of one step; random signs.
  void (*dither_uniform)(float *out, const float *x, size_t n, float step, uint64_t key);
  void (*flip_signs)(float *out, const float *x, size_t n, uint64_t key);

  // Scales per channel (codec_channels.h): most = max(most, |x|), NaN where any is NaN; out = x y, element by element.
  void (*fold_magnitudes)(float *most, const float *x, size_t n);
  void (*multiply)(float *out, const float *x, const float *y, size_t n);  // out may be x or y

  // Integers as range-coded tokens and plain bits (codec_entropy.h). Per context: 64 counts, each in four copies until
  // sum_counts adds them up; sums of 2 x (number, excess), in four copies of 64 contexts; 64 symbols. w NULL: no plain bits
  // are written. Encode writes backwards from end, may change the 32 bytes before what it returns, the new one.
  void (*entropy_contexts)(uint8_t *out, const uint8_t *columns, size_t n, const xp_entropy_scale *scale);
  void (*entropy_quantise)(uint8_t *tokens, xp_entropy_writer *w, uint32_t *counts, const float *y, size_t n,
                           const uint8_t *contexts, const float *rounding, float inverse_step);
  void (*entropy_sum_counts)(uint32_t *counts, size_t contexts);
  void (*entropy_excess)(float *sums, const float *y, size_t n, const uint8_t *contexts, const float *rounding,
                         float inverse_step);
  void (*entropy_tokens)(uint8_t *tokens, xp_entropy_writer *w, uint32_t *counts, const int32_t *values, size_t n,
                         uint8_t context);
  uint8_t *(*entropy_encode)(uint8_t *end, uint32_t *states, const uint8_t *tokens, size_t n, const uint8_t *contexts,
                             uint8_t context, const uint32_t *symbols);
  void (*entropy_fill_slots)(uint32_t *slots, uint32_t token, uint32_t frequency);
  void (*entropy_decode)(float *out, size_t n, xp_entropy_decoder *d, const uint8_t *contexts, float step);
  void (*entropy_decode_integers)(int32_t *out, size_t n, xp_entropy_decoder *d, uint8_t context);
} xp_kernels;

// The variant's table, or NULL where this build or this processor lacks it.
const xp_kernels *xp_kernels_variant(xp_variant variant);

// The best table for this processor. CROSSPOINT_KERNELS=scalar|avx2|avx512|neon in the environment forces one
// (an unknown or unavailable name is ignored; xpoint doctor reports the choice).
const xp_kernels *xp_kernels_best(void);

#endif
