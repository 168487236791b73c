// Rows as packed codes of 1 to 8 bits.
//
// A row is cut into chunks of 128 floats: 8 vectors of 16 lanes. A code is split into fields of 4, 4, 2 or 1 bits
// (8 = 4+4, 7 = 4+2+1, 5 = 4+1, ...), lowest first. A lane joins its 8 fields of a kind into 32, 16 or 8 bits, and the
// lanes follow one another. The last chunk of a row has as many lanes as its floats need (8 to a lane), so that n codes
// take bits * ceil(n / 8) bytes.

typedef struct quantiser {
  float offset, factor;        // uniform: code = round((x - offset) / factor)
  const uint32_t *cells;       // not NULL: Lloyd-Max; 512 cells of 1/64, threshold with the code in its low 7 bits
  const float *thresholds;     // the same thresholds in order
} quantiser;

// Lane by lane: gathers were measured and are slower.
INLINE vu lookup_cell(const uint32_t *table, vi index) {
  vu found;
  for (int lane = 0; lane < LANES; lane++) found[lane] = table[index[lane]];
  return found;
}

// The same for up to 16 entries, which fit registers; the table must hold 16 in any case.
INLINE vu lookup_16(const uint32_t *table, vi index) {
#if defined(VARIANT_AVX512)
  return (vu)_mm512_permutexvar_epi32((__m512i)index, _mm512_loadu_si512(table));
#elif defined(VARIANT_AVX2)
  __m256i low = _mm256_loadu_si256((const __m256i *)table), high = _mm256_loadu_si256((const __m256i *)(table + 8));
  union { vi v; __m256i half[2]; } in = {index}, out;
  for (int i = 0; i < 2; i++) {
    __m256i upper = _mm256_slli_epi32(in.half[i], 28);
    __m256 a = (__m256)_mm256_permutevar8x32_epi32(low, in.half[i]);
    __m256 b = (__m256)_mm256_permutevar8x32_epi32(high, in.half[i]);
    out.half[i] = (__m256i)_mm256_blendv_ps(a, b, (__m256)upper);
  }
  return (vu)out.v;
#else
  return lookup_cell(table, index);
#endif
}

// Few thresholds are counted one by one. Otherwise a magnitude's cell knows the code at its lower end and the one
// threshold that may lie inside.
INLINE vu lloyd_max_code(vf x, const quantiser *q, int bits) {
  vf y = x * q->factor;
  vu magnitude = bits_of(y) & 0x7FFFFFFFu, sign = (bits_of(y) >> 31) << (bits - 1);
  if (bits <= 4) {
    vu code = {};
#pragma clang loop unroll(full)
    for (int i = 0; i < (1 << (bits - 1)) - 1; i++) code = choose((vu)((vf)magnitude >= q->thresholds[i]), (vu){} + (uint32_t)(i + 1), code);
    return code | sign;
  }
  vf position = (vf)magnitude * 64.0f;
  vu inside = (vu)(position < 511.0f);
  vi index = __builtin_convertvector((vf)choose(inside, bits_of(position), bits_of(splat(511.0f))), vi);
  vu cell = lookup_cell(q->cells, index);
  vu above = (vu)((vi)magnitude >= (vi)(cell & ~0x7Fu));
  return ((cell & 0x7Fu) - above) | sign;
}

INLINE vu uniform_code(vf x, const quantiser *q, int bits) {
  float top = (float)((1 << bits) - 1);
  vf y = (x - q->offset) / q->factor;
  y = (vf)choose((vu)(y > 0.0f), bits_of(y), (vu){});
  y = (vf)choose((vu)(y < top), bits_of(y), bits_of(splat(top)));
  return bits_of(y + 0x1p23f) & 0xFFu;
}

INLINE vu code_of(vf x, const quantiser *q, int bits) {
  return q->cells ? lloyd_max_code(x, q, bits) : uniform_code(x, q, bits);
}

INLINE uint8_t *pack_field(uint8_t *out, const vu *codes, int shift, int width, size_t lanes) {
  vu word = {};
#pragma clang loop unroll(full)
  for (int j = 0; j < 8; j++) word |= ((codes[j] >> shift) & ((1u << width) - 1)) << (width * j);
  uint8_t packed[64];
  if (width == 4) *(vu_any *)packed = word;
  if (width == 2) store_halves(packed, word);
  if (width == 1) store_bytes(packed, word);
  __builtin_memcpy(out, packed, lanes * (size_t)width);
  return out + lanes * (size_t)width;
}

INLINE uint8_t *pack_chunk(uint8_t *out, const vu *codes, int bits, size_t lanes) {
  if (bits == 8) return pack_field(pack_field(out, codes, 0, 4, lanes), codes, 4, 4, lanes);
  if (bits & 4) out = pack_field(out, codes, 0, 4, lanes);
  if (bits & 2) out = pack_field(out, codes, bits & 4, 2, lanes);
  if (bits & 1) out = pack_field(out, codes, bits & 6, 1, lanes);
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

INLINE void quantise_bits(uint8_t *out, const float *x, size_t n, const quantiser *q, int bits) {
  vu codes[8];
  size_t i = 0;
  for (; i + 128 <= n; i += 128) {
#pragma clang loop unroll(full)
    for (int j = 0; j < 8; j++) codes[j] = code_of(load(x + i + LANES * j), q, bits);
    out = pack_chunk(out, codes, bits, LANES);
  }
  if (i == n) return;
  size_t lanes = (n - i + 7) / 8;
  for (size_t j = 0; j < 8; j++) {
    size_t start = i + j * lanes;
    size_t count = start >= n ? 0 : n - start < lanes ? n - start : lanes;
    vu valid = {};
    for (size_t lane = 0; lane < count; lane++) valid[lane] = ~0u;
    codes[j] = valid & code_of(load_tail(x + start, count), q, bits);
  }
  pack_chunk(out, codes, bits, lanes);
}

typedef struct dequantiser {
  float offset, factor;        // uniform: x = code * factor + offset
  const float *levels;         // not NULL: x = level[code] * factor
} dequantiser;

INLINE vf value_of(vu code, const dequantiser *q, int bits) {
  if (!q->levels) return __builtin_convertvector((vi)code, vf) * q->factor + q->offset;
  const uint32_t *levels = (const uint32_t *)q->levels;
  return (vf)(bits <= 4 ? lookup_16(levels, (vi)code) : lookup_cell(levels, (vi)code)) * q->factor;
}

INLINE void dequantise_bits(float *out, const uint8_t *in, size_t n, const dequantiser *q, int bits) {
  vu codes[8];
  size_t i = 0;
  for (; i + 128 <= n; i += 128) {
    in = unpack_chunk(codes, in, bits, LANES);
#pragma clang loop unroll(full)
    for (int j = 0; j < 8; j++) store(out + i + LANES * j, value_of(codes[j], q, bits));
  }
  if (i == n) return;
  size_t lanes = (n - i + 7) / 8;
  unpack_chunk(codes, in, bits, lanes);
  for (size_t j = 0; j < 8; j++) {
    vf v = value_of(codes[j], q, bits);
    for (size_t lane = 0; lane < lanes && i + j * lanes + lane < n; lane++) out[i + j * lanes + lane] = v[lane];
  }
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

static void lloyd_max_encode(void *out, const float *x, size_t n, int32_t bits, float factor, const uint32_t *cells,
                             const float *thresholds) {
  quantiser q = {0, factor, cells, thresholds};
  if (!cells) return;
  FOR_BITS(quantise_bits(out, x, n, &q, B))
}

static void lloyd_max_decode(float *out, const void *in, size_t n, int32_t bits, float factor, const float *levels) {
  dequantiser q = {0, factor, levels};
  if (!levels) return;
  FOR_BITS(dequantise_bits(out, in, n, &q, B))
}

static void uniform_encode(void *out, const float *x, size_t n, int32_t bits, float low, float step) {
  quantiser q = {low, step, 0, 0};
  FOR_BITS(quantise_bits(out, x, n, &q, B))
}

static void uniform_decode(float *out, const void *in, size_t n, int32_t bits, float low, float step) {
  dequantiser q = {low, step, 0};
  FOR_BITS(dequantise_bits(out, in, n, &q, B))
}

// The largest magnitude; NaN if there is one (as integers NaN lies above infinity).
static float largest_magnitude(const float *x, size_t n) {
  vi most = {};
  size_t i = 0;
  for (; i < n; i += LANES) {
    vi magnitude = (vi)(i + LANES <= n ? load(x + i) : load_tail(x + i, n - i)) & 0x7FFFFFFF;
    most = (vi)choose((vu)(magnitude > most), (vu)magnitude, (vu)most);
  }
  int32_t bits = 0;
  for (int lane = 0; lane < LANES; lane++) bits = most[lane] > bits ? most[lane] : bits;
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
