// Rows as packed codes of 1 to 8 bits.
//
// A row is cut into chunks of 128 floats: 8 vectors of 16 lanes. A code is split into fields of 4, 4, 2 or 1 bits
// (8 = 4+4, 7 = 4+2+1, 5 = 4+1, ...), lowest first. A lane joins its 8 fields of a kind into 32, 16 or 8 bits, and the
// lanes follow one another. The last chunk of a row has as many lanes as its floats need (8 to a lane), so that n codes
// take bits * ceil(n / 8) bytes.

typedef struct quantiser {
  float offset, factor;        // uniform: code = round((x - offset) / factor)
  const float *compander;      // not NULL: Lloyd-Max
} quantiser;

// The magnitude's place among the levels: the whole part of a polynomial. A cap keeps it below the number of levels.
INLINE vu lloyd_max_code(vf x, const quantiser *q, int bits) {
  const int degree = bits <= 2 ? 1 : bits <= 4 ? 3 : bits <= 6 ? 4 : bits - 2;
  vf y = x * q->factor;
  vu sign = (bits_of(y) >> 31) << (bits - 1);
  if (bits == 1) return sign;
  // As integers: positive floats are in the same order.
  vf magnitude = (vf)__builtin_elementwise_min((vi)y & INT32_MAX, (vi)splat(q->compander[0]));
  vf place = splat(q->compander[degree]);
#pragma clang loop unroll(full)
  for (int k = degree - 1; k > 0; k--) place = place * magnitude + q->compander[k];
  return (vu)__builtin_convertvector(place * magnitude, vi) | sign;
}

INLINE vu uniform_code(vf x, const quantiser *q, int bits) {
  float top = (float)((1 << bits) - 1);
  vf y = (x - q->offset) / q->factor;
  y = (vf)choose((vu)(y > 0.0f), bits_of(y), (vu){});
  y = (vf)choose((vu)(y < top), bits_of(y), bits_of(splat(top)));
  return bits_of(y + 0x1p23f) & 0xFFu;
}

INLINE vu code_of(vf x, const quantiser *q, int bits) {
  return q->compander ? lloyd_max_code(x, q, bits) : uniform_code(x, q, bits);
}

// Appends one field of eight codes to a lane; even holds codes 0, 2, 4 and 6 of each lane in its bytes, odd the others.
INLINE uint8_t *pack_field(uint8_t *out, vu even, vu odd, int shift, int width, size_t lanes) {
  const uint32_t field = 0x01010101u * ((1u << width) - 1);
  vu word = ((even >> shift) & field) | (((odd >> shift) & field) << width);
  if (width == 2) {
    word |= word >> 4;
    word = (word & 0xFFu) | ((word >> 8) & 0xFF00u);
  }
  if (width == 1) {
    word |= word >> 6;
    word |= word >> 12;
  }
  uint8_t packed[64];
  if (width == 4) *(vu_any *)packed = word;
  if (width == 2) store_halves(packed, word);
  if (width == 1) store_bytes(packed, word);
  __builtin_memcpy(out, packed, lanes * (size_t)width);
  return out + lanes * (size_t)width;
}

INLINE uint8_t *pack_chunk(uint8_t *out, const vu *codes, int bits, size_t lanes) {
  vu even = codes[0] | codes[2] << 8 | codes[4] << 16 | codes[6] << 24;
  vu odd = codes[1] | codes[3] << 8 | codes[5] << 16 | codes[7] << 24;
  if (bits == 8) return pack_field(pack_field(out, even, odd, 0, 4, lanes), even, odd, 4, 4, lanes);
  if (bits & 4) out = pack_field(out, even, odd, 0, 4, lanes);
  if (bits & 2) out = pack_field(out, even, odd, bits & 4, 2, lanes);
  if (bits & 1) out = pack_field(out, even, odd, bits & 6, 1, lanes);
  return out;
}

INLINE const uint8_t *unpack_field(vu *codes, const uint8_t *in, int shift, int width, size_t lanes) {
  uint8_t packed[64] = {0};
  __builtin_memcpy(packed, in, lanes * (size_t)width);
  vu word = width == 4 ? (vu) * (const vu_any *)packed : width == 2 ? load_halves(packed) : load_bytes(packed);
#pragma clang loop unroll(full)
  for (int j = 0; j < 8; j++) codes[j] |= ((word >> (width * j)) & ((1u << width) - 1)) << shift;
  return in + lanes * (size_t)width;
}

INLINE const uint8_t *unpack_chunk(vu *codes, const uint8_t *in, int bits, size_t lanes) {
#pragma clang loop unroll(full)
  for (int j = 0; j < 8; j++) codes[j] = (vu){};
  if (bits == 8) return unpack_field(codes, unpack_field(codes, in, 0, 4, lanes), 4, 4, lanes);
  if (bits & 4) in = unpack_field(codes, in, 0, 4, lanes);
  if (bits & 2) in = unpack_field(codes, in, bits & 4, 2, lanes);
  if (bits & 1) in = unpack_field(codes, in, bits & 6, 1, lanes);
  return in;
}

#define LOW_HALF 0, 1, 2, 3, 4, 5, 6, 7
#define HIGH_HALF 8, 9, 10, 11, 12, 13, 14, 15

// A last chunk of 64 floats: two codes of each of its 8 lanes are found in one vector.
INLINE void quantise_64(uint8_t *out, const float *x, const quantiser *q, int bits) {
  vu codes[8];
#pragma clang loop unroll(full)
  for (int j = 0; j < 8; j += 2) {
    codes[j] = code_of(load(x + 8 * j), q, bits);
    codes[j + 1] = __builtin_shufflevector(codes[j], codes[j], HIGH_HALF, LOW_HALF);
  }
  pack_chunk(out, codes, bits, 8);
}

// The last chunk of a row, of fewer than 128 floats.
INLINE void quantise_last(uint8_t *out, const float *x, size_t n, const quantiser *q, int bits) {
  vu codes[8];
  size_t lanes = (n + 7) / 8;
#pragma clang loop unroll(full)
  for (size_t j = 0; j < 8; j++) {
    size_t start = j * lanes, count = start >= n ? 0 : n - start < lanes ? n - start : lanes;
    codes[j] = lanes_below(count) & code_of(load_tail(x + start, count), q, bits);
  }
  pack_chunk(out, codes, bits, lanes);
}

INLINE void quantise_bits(uint8_t *out, const float *x, size_t n, const quantiser *q, int bits) {
  vu codes[8];
  size_t i = 0;
  for (; i + 128 <= n; i += 128) {
#pragma clang loop unroll(full)
    for (int j = 0; j < 8; j++) codes[j] = code_of(load(x + i + LANES * j), q, bits);
    out = pack_chunk(out, codes, bits, LANES);
  }
  if (n - i == 64) quantise_64(out, x + i, q, bits);
  else if (i < n) quantise_last(out, x + i, n - i, q, bits);
}

// The largest table of 2^bits entries that registers hold.
#if defined(VARIANT_AVX512)
#define REGISTER_BITS 7
#elif defined(VARIANT_AVX2)
#define REGISTER_BITS 5
#else
#define REGISTER_BITS 0
#endif

// Entries of a table of 2^bits (at least 16), out of registers where there are enough of them; else lane by lane: gathers
// were measured and are slower.
INLINE vu lookup(const word_any *table, vu index, int bits) {
#if defined(VARIANT_AVX512)
  __m512i in = (__m512i)index;
  if (bits <= 4) return (vu)_mm512_permutexvar_epi32(in, _mm512_loadu_si512(table));
  __m512i found = _mm512_permutex2var_epi32(_mm512_loadu_si512(table), in, _mm512_loadu_si512(table + 16));
#pragma clang loop unroll(full)
  for (int start = 32; start < 1 << bits; start += 32) {
    const word_any *part = table + start;
    __m512i other = _mm512_permutex2var_epi32(_mm512_loadu_si512(part), in, _mm512_loadu_si512(part + 16));
    found = _mm512_mask_mov_epi32(found, _mm512_cmpge_epu32_mask(in, _mm512_set1_epi32(start)), other);
  }
  return (vu)found;
#else
  vu found;
#if defined(VARIANT_AVX2)
  if (bits <= REGISTER_BITS) {
    union { vu v; __m256i half[2]; } in = {index}, out;
    for (int i = 0; i < 2; i++) {
      __m256 part[4];
#pragma clang loop unroll(full)
      for (int k = 0; k < (bits <= 4 ? 2 : 4); k++)
        part[k] = (__m256)_mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)(table + 8 * k)), in.half[i]);
      __m256 eight = (__m256)_mm256_slli_epi32(in.half[i], 28), sixteen = (__m256)_mm256_slli_epi32(in.half[i], 27);
      __m256 entry = _mm256_blendv_ps(part[0], part[1], eight);
      if (bits == 5) entry = _mm256_blendv_ps(entry, _mm256_blendv_ps(part[2], part[3], eight), sixteen);
      out.half[i] = (__m256i)entry;
    }
    return out.v;
  }
#endif
  for (int lane = 0; lane < LANES; lane++) found[lane] = table[index[lane]];
  return found;
#endif
}

typedef struct dequantiser {
  float offset, factor;        // uniform: x = code * factor + offset
  const float *levels;         // not NULL: x = level[code] * factor
} dequantiser;

INLINE vf value_of(vu code, const dequantiser *q, int bits) {
  if (!q->levels) return __builtin_convertvector((vi)code, vf) * q->factor + q->offset;
  const word_any *levels = (const word_any *)q->levels;
  if (bits <= 4 || bits - 1 > REGISTER_BITS) return (vf)lookup(levels, code, bits < 4 ? 4 : bits) * q->factor;
  vu sign = (code >> (bits - 1)) << 31, place = code & ((1u << (bits - 1)) - 1);
  return (vf)(lookup(levels, place, bits - 1) ^ sign) * q->factor;
}

INLINE void dequantise_64(float *out, const uint8_t *in, const dequantiser *q, int bits) {
  vu codes[8];
  unpack_chunk(codes, in, bits, 8);
#pragma clang loop unroll(full)
  for (int j = 0; j < 8; j += 2) {
    vu both = __builtin_shufflevector(codes[j], codes[j + 1], LOW_HALF, 16, 17, 18, 19, 20, 21, 22, 23);
    store(out + 8 * j, value_of(both, q, bits));
  }
}

INLINE void dequantise_last(float *out, const uint8_t *in, size_t n, const dequantiser *q, int bits) {
  vu codes[8];
  size_t lanes = (n + 7) / 8;
  unpack_chunk(codes, in, bits, lanes);
#pragma clang loop unroll(full)
  for (size_t j = 0; j < 8; j++) {
    size_t start = j * lanes, count = start >= n ? 0 : n - start < lanes ? n - start : lanes;
    store_tail(out + start, value_of(codes[j], q, bits), count);
  }
}

INLINE void dequantise_bits(float *out, const uint8_t *in, size_t n, const dequantiser *q, int bits) {
  vu codes[8];
  size_t i = 0;
  for (; i + 128 <= n; i += 128) {
    in = unpack_chunk(codes, in, bits, LANES);
#pragma clang loop unroll(full)
    for (int j = 0; j < 8; j++) store(out + i + LANES * j, value_of(codes[j], q, bits));
  }
  if (n - i == 64) dequantise_64(out + i, in, q, bits);
  else if (i < n) dequantise_last(out + i, in, n - i, q, bits);
}

// One copy of each loop per number of bits, so that shifts and masks are constants.
#define FOR_BITS(STATEMENT)                                                                     \
  switch (bits) {                                                                               \
    case 1: { enum { B = 1 }; STATEMENT; break; }                                               \
    case 2: { enum { B = 2 }; STATEMENT; break; }                                               \
    case 3: { enum { B = 3 }; STATEMENT; break; }                                               \
    case 4: { enum { B = 4 }; STATEMENT; break; }                                               \
    case 5: { enum { B = 5 }; STATEMENT; break; }                                               \
    case 6: { enum { B = 6 }; STATEMENT; break; }                                               \
    case 7: { enum { B = 7 }; STATEMENT; break; }                                               \
    case 8: { enum { B = 8 }; STATEMENT; break; }                                               \
  }

static void lloyd_max_encode(void *out, const float *x, size_t n, int32_t bits, float factor, const float *compander) {
  quantiser q = {0, factor, compander};
  __builtin_assume(compander != 0);
  FOR_BITS(quantise_bits(out, x, n, &q, B))
}

static void lloyd_max_decode(float *out, const void *in, size_t n, int32_t bits, float factor, const float *levels) {
  dequantiser q = {0, factor, levels};
  __builtin_assume(levels != 0);
  FOR_BITS(dequantise_bits(out, in, n, &q, B))
}

static void uniform_encode(void *out, const float *x, size_t n, int32_t bits, float low, float step) {
  quantiser q = {low, step, 0};
  FOR_BITS(quantise_bits(out, x, n, &q, B))
}

static void uniform_decode(float *out, const void *in, size_t n, int32_t bits, float low, float step) {
  dequantiser q = {low, step, 0};
  FOR_BITS(dequantise_bits(out, in, n, &q, B))
}

// The largest magnitude; NaN if there is one (as integers NaN lies above infinity).
static float largest_magnitude(const float *x, size_t n) {
  vi mosts[4] = {};
  size_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int k = 0; k < 4; k++) {
      vi magnitude = (vi)load(x + i + k * LANES) & 0x7FFFFFFF;
      mosts[k] = __builtin_elementwise_max(magnitude, mosts[k]);
    }
  for (; i < n; i += LANES) {
    vi magnitude = (vi)(i + LANES <= n ? load(x + i) : load_tail(x + i, n - i)) & 0x7FFFFFFF;
    mosts[0] = __builtin_elementwise_max(magnitude, mosts[0]);
  }
  for (int k = 1; k < 4; k++) mosts[0] = __builtin_elementwise_max(mosts[0], mosts[k]);
  int32_t bits = __builtin_reduce_max(mosts[0]);
  float result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
}

static void smallest_and_largest(const float *x, size_t n, float *smallest, float *largest) {
  vf low = splat(n ? x[0] : 0), high = low;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf v = load(x + i);
    low = (vf)choose((vu)(v < low), (vu)v, (vu)low);
    high = (vf)choose((vu)(v > high), (vu)v, (vu)high);
  }
  for (int lane = 0; i < n; i++, lane++) {
    low[lane] = x[i] < low[lane] ? x[i] : low[lane];
    high[lane] = x[i] > high[lane] ? x[i] : high[lane];
  }
  for (int lane = 1; lane < LANES; lane++) {
    low[0] = low[lane] < low[0] ? low[lane] : low[0];
    high[0] = high[lane] > high[0] ? high[lane] : high[0];
  }
  *smallest = low[0], *largest = high[0];
}
