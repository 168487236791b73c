// Integers as range-coded tokens (asymmetric numeral systems, rANS: J. Duda, arXiv 1311.2540) and plain bits.
//
// A token is an integer of magnitude up to 15 with its sign. Above, each octave up to 2^16 has two, and what they leave open
// follows as plain bits, the sign last. Two escapes reach beyond: long magnitudes, below 2^24, and raw floats for what has
// no magnitude that a float could tell from the floats next to it. A token is coded under a context, a table of frequencies
// that sum to 2^11.
//
// 16 states take turns, so that a vector of 16 tokens is coded at once (F. Giesen, "Interleaved entropy coders", arXiv
// 1402.3392): token i of a run belongs to state i mod 16. States lie in 2^15 ..< 2^31 and give and take words of 16 bits,
// which are read forwards, in the order of the tokens, and hence written backwards. Only integers decide what is read; a
// decoder given noise reads zeros beyond the end and says so.

enum { RANS_BITS = 11, RANS_LOW = 15, DIRECT = 16, OPEN_TOKEN = 2 * DIRECT - 1, TOKENS = 64 };

// A long magnitude is three bits of octave - LONG_OCTAVE, the bits below its top bit, and the sign.
enum { LONG_TOKEN = 55, RAW_TOKEN = 56, LONG_OCTAVE = 16, LONG_OCTAVE_BITS = 3 };
#define FIRST_LONG 0x1p16f
#define FIRST_RAW 0x1p24f

// Counts of tokens are kept four times, side by side, for tokens that follow one another: no increment waits for the one
// before.
enum { COUNT_COPIES = 4 };

// The first count of 16 bytes, zeros beyond.
INLINE vu widen(const uint8_t *p, size_t count) {
  vb bytes = {};
  if (count >= LANES) bytes = *(const vb_any *)p;
  else __builtin_memcpy(&bytes, p, count);
  return __builtin_convertvector(bytes, vu);
}

// table[index] in each lane. Instructions that gather were measured and are slower.
INLINE vu gather(const word_any *table, vu index) {
  uint64_t pairs[LANES / 2];
  __builtin_memcpy(pairs, &index, sizeof pairs);
  vu out;
#pragma clang loop unroll(full)
  for (int i = 0; i < LANES; i++) out[i] = table[(uint32_t)(pairs[i / 2] >> (i % 2 * 32))];
  return out;
}

// A class for every float: that of its column plus that of its row, kept within the tables. All fit in a byte with its sign.
INLINE void classes(uint8_t *out, const uint8_t *columns, size_t count, int8_t offset, const xp_entropy_scale *scale) {
  typedef int8_t vc __attribute__((vector_size(64)));
  vc c = {};
  __builtin_memcpy(&c, columns, count);
  c = __builtin_elementwise_max(c + offset, (vc){});
  c = __builtin_elementwise_min(c, (vc){} + (int8_t)scale->last);
  c = (c >> (int8_t)scale->shift) + (int8_t)scale->first;
  __builtin_memcpy(out, &c, count);
}

static void entropy_contexts(uint8_t *out, const uint8_t *columns, size_t n, const xp_entropy_scale *scale) {
  int32_t offset = scale->offset;
  int8_t within = (int8_t)(offset < -TOKENS ? -TOKENS : offset > TOKENS ? TOKENS : offset);
  size_t i = 0;
  for (; i + 64 <= n; i += 64) classes(out + i, columns + i, 64, within, scale);
  if (i < n) classes(out + i, columns + i, n - i, within, scale);
}

INLINE uint32_t direct_token(uint32_t m, uint32_t negative) { return m ? 2 * m - 1 + negative : 0; }

INLINE void put_bits(xp_entropy_writer *w, uint32_t value, uint32_t count) {
  w->buffer |= (uint64_t)value << w->count;
  w->count += (int32_t)count;
  __builtin_memcpy(w->bits, &w->buffer, 8);
  w->bits += w->count >> 3;
  w->buffer >>= w->count & ~7;
  w->count &= 7;
}

// The token of a magnitude from DIRECT to 2^16.
INLINE uint8_t put_open(xp_entropy_writer *w, uint32_t m, uint32_t negative) {
  uint32_t octave = 31 - (uint32_t)__builtin_clz(m), open = octave - 1;
  if (w) put_bits(w, (m & ((1u << open) - 1)) | negative << open, open + 1);
  return (uint8_t)(OPEN_TOKEN + 2 * (octave - 4) + ((m >> open) & 1));
}

// The token of a float that is not direct: top steps, or raw where those are too many.
static __attribute__((noinline)) uint8_t put_large(xp_entropy_writer *w, float top, float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  if (top < FIRST_LONG) return put_open(w, (uint32_t)top, bits >> 31);
  if (!(top < FIRST_RAW)) {
    if (w) put_bits(w, bits, 32);
    return RAW_TOKEN;
  }
  uint32_t m = (uint32_t)top, octave = 31 - (uint32_t)__builtin_clz(m);
  if (w) {
    put_bits(w, octave - LONG_OCTAVE, LONG_OCTAVE_BITS);
    put_bits(w, (m & ((1u << octave) - 1)) | (bits >> 31) << octave, octave + 1);
  }
  return LONG_TOKEN;
}

// Tokens of y / step, magnitudes rounded down after adding the context's rounding.
INLINE void quantise_lanes(uint8_t *tokens, xp_entropy_writer *w, uint32_t *counts, const float *y, size_t count,
                           const uint8_t *contexts, const float *rounding, float inverse_step) {
  vf v = count == LANES ? load(y) : load_tail(y, count);
  vu c = widen(contexts, count);
  vf a = (vf)((vi)v & 0x7FFFFFFF) * inverse_step;
  vf top = a + (vf)lookup((const word_any *)rounding, c, 6);
  vu large = (vu)~(top < (float)DIRECT);
  vu m = __builtin_convertvector((vf)((vu)top & ~large), vu);
  vu t = (2 * m - 1 + ((vu)v >> 31)) & (vu)(m != 0);
  vb bytes = __builtin_convertvector(t, vb);
  __builtin_memcpy(tokens, &bytes, count);
  uint32_t some = mask_bits(large & lanes_below(count));
  for (; __builtin_expect(some != 0, 0); some &= some - 1) {
    size_t lane = (size_t)__builtin_ctz(some);
    tokens[lane] = put_large(w, top[lane], y[lane]);
    t[lane] = tokens[lane];
  }
  uint32_t places[LANES];
  vu place = (c * TOKENS + t) * COUNT_COPIES;
  __builtin_memcpy(places, &place, sizeof places);
#pragma clang loop unroll(full)
  for (size_t lane = 0; lane < LANES; lane++)
    if (lane < count) counts[places[lane] + lane % COUNT_COPIES]++;
}

static void entropy_quantise(uint8_t *tokens, xp_entropy_writer *w, uint32_t *counts, const float *y, size_t n,
                             const uint8_t *contexts, const float *rounding, float inverse_step) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    quantise_lanes(tokens + i, w, counts, y + i, LANES, contexts + i, rounding, inverse_step);
  if (i < n) quantise_lanes(tokens + i, w, counts, y + i, n - i, contexts + i, rounding, inverse_step);
}

// Adds the copies of the counts of so many contexts up, one count behind the other.
static void entropy_sum_counts(uint32_t *counts, size_t contexts) {
  for (size_t i = 0; i < TOKENS * contexts; i++) {
    const uint32_t *copies = counts + COUNT_COPIES * i;
    counts[i] = copies[0] + copies[1] + copies[2] + copies[3];
  }
}

// The slots of a token of some frequency.
static void entropy_fill_slots(uint32_t *slots, uint32_t token, uint32_t frequency) {
  for (uint32_t place = 0; place < frequency; place++) slots[place] = token | (frequency - 1) << 6 | place << 17;
}

// For magnitudes of 1 and of 2 to 7: their number, and by how much they exceed what they stand for; in as many copies, one of
// all contexts behind the other.
static void entropy_excess(float *sums, const float *y, size_t n, const uint8_t *contexts, const float *rounding,
                           float inverse_step) {
  const vu lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, copy = lane % COUNT_COPIES * 64;
  for (size_t i = 0; i < n; i += LANES) {
    size_t count = n - i < LANES ? n - i : LANES;
    vf a = (vf)((vi)load_tail(y + i, count) & 0x7FFFFFFF) * inverse_step;
    vu c = widen(contexts + i, count);
    vf top = a + (vf)lookup((const word_any *)rounding, c, 6);
    vu some = (vu)(top >= 1.0f) & (vu)(top < 8.0f) & lanes_below(count);
    vu m = __builtin_convertvector((vf)((vu)top & some), vu);
    // Others count under context 0, which is not of elements: no branch.
    vu place = 4 * (copy + (c & some)) + (2 & (vu)(m > 1));
    vf excess = __builtin_convertvector(m, vf) - a;
    uint32_t places[LANES];
    float excesses[LANES];
    __builtin_memcpy(places, &place, sizeof places);
    __builtin_memcpy(excesses, &excess, sizeof excesses);
#pragma clang loop unroll(full)
    for (int lane = 0; lane < LANES; lane++) {
      sums[places[lane]] += 1;
      sums[places[lane] + 1] += excesses[lane];
    }
  }
}

// Tokens of integers of at most 2^16 - 1 in magnitude.
static void entropy_tokens(uint8_t *tokens, xp_entropy_writer *w, uint32_t *counts, const int32_t *values, size_t n,
                           uint8_t context) {
  for (size_t i = 0; i < n; i++) {
    uint32_t negative = values[i] < 0, m = negative ? 0u - (uint32_t)values[i] : (uint32_t)values[i];
    tokens[i] = m < DIRECT ? (uint8_t)direct_token(m, negative) : put_open(w, m, negative);
    counts[COUNT_COPIES * (TOKENS * context + tokens[i])]++;
  }
}

// Writes the low words of the lanes of a mask in front of end, in their order; the 32 bytes there are free.
INLINE uint8_t *put_words(uint8_t *end, vu x, vu mask) {
#if defined(VARIANT_AVX512)
  __mmask16 bits = _mm512_movepi32_mask((__m512i)mask);
  uint32_t count = (uint32_t)__builtin_popcount(bits);
  end -= 2 * count;
  __m256i words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(bits, (__m512i)x));
  _mm256_mask_storeu_epi16(end, (__mmask16)((1u << count) - 1), words);
  return end;
#elif defined(VARIANT_AVX2)
  __m256i half[2], marks[2];
  __builtin_memcpy(half, &x, sizeof half);
  __builtin_memcpy(marks, &mask, sizeof marks);
  for (int i = 1; i >= 0; i--) {
    uint64_t bits = (uint32_t)_mm256_movemask_ps((__m256)marks[i]);
    uint32_t count = (uint32_t)__builtin_popcountll(bits);
    if (!count) continue;
    uint64_t chosen = _pdep_u64(bits, 0x0101010101010101) * 0xFF;
    // Moved to the top: what is below will be overwritten.
    uint64_t order = _pext_u64(0x0706050403020100, chosen) << (64 - 8 * count);
    __m256i moved = _mm256_permutevar8x32_epi32(half[i], _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order)));
    moved = _mm256_and_si256(moved, _mm256_set1_epi32(0xFFFF));
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(moved), _mm256_extracti128_si256(moved, 1));
    _mm_storeu_si128((__m128i *)(end - 16), words);
    end -= 2 * count;
  }
  return end;
#else
  for (int i = LANES - 1; i >= 0; i--) {
    if (!mask[i]) continue;
    uint16_t word = (uint16_t)x[i];
    end -= 2;
    __builtin_memcpy(end, &word, 2);
  }
  return end;
#endif
}

// The quotient comes from floats that are made too large, by at most 2^-21 of it, which is less than one: where it is one
// too many, the remainder is negative.
INLINE uint8_t *put_lanes(uint8_t *end, vu *state, vu symbol, vu active) {
  vu frequency = symbol & 0xFFFF, x = *state;
  vf inverse = 0x1.000004p0f / __builtin_convertvector((vi)frequency, vf);
  vu full = (vu)((x >> (31 - RANS_BITS)) >= frequency) & active;
  end = put_words(end, x, full);
  x = choose(full, x >> 16, x);
  vu q = (vu)__builtin_convertvector(__builtin_convertvector((vi)x, vf) * inverse, vi);
  // q f + rest becomes q 2^11 + rest + start: each q adds what 2^11 has over f.
  vu gain = (1u << RANS_BITS) - frequency;
  vi rest = (vi)(x - q * frequency);
  vu next = x + (symbol >> 16) + q * gain - (gain & (vu)(rest >> 31));
  *state = choose(active, next, x);
  return end;
}

// Codes a run of tokens, last first, in front of end; contexts NULL: all under the one given. Symbols: frequency, start << 16.
static uint8_t *entropy_encode(uint8_t *end, uint32_t *states, const uint8_t *tokens, size_t n, const uint8_t *contexts,
                               uint8_t context, const uint32_t *symbols) {
  vu state;
  __builtin_memcpy(&state, states, sizeof state);
  size_t i = (n + LANES - 1) / LANES * LANES;
  while (i > 0) {
    i -= LANES;
    size_t count = n - i < LANES ? n - i : LANES;
    vu c = contexts ? widen(contexts + i, count) : (vu){} + context;
    vu symbol = gather(symbols, c * TOKENS + widen(tokens + i, count));
    vu active = lanes_below(count);
    // No division by zero in lanes that take no part.
    symbol |= ~active & 1;
    end = put_lanes(end, &state, symbol, active);
  }
  __builtin_memcpy(states, &state, sizeof state);
  return end;
}

// Fills the lanes of a mask up with a word each.
INLINE vu take_words(xp_entropy_decoder *d, vu x, vu mask) {
#if defined(VARIANT_AVX512)
  if (__builtin_expect(d->words_end - d->words >= 32, 1)) {
    __mmask16 bits = _mm512_movepi32_mask((__m512i)mask);
    __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)d->words));
    words = _mm512_maskz_expand_epi32(bits, words);
    d->words += 2 * __builtin_popcount(bits);
    return (vu)_mm512_mask_or_epi32((__m512i)x, bits, (__m512i)(x << 16), words);
  }
#elif defined(VARIANT_AVX2)
  if (__builtin_expect(d->words_end - d->words >= 32, 1)) {
    __m256i half[2], marks[2];
    __builtin_memcpy(half, &x, sizeof half);
    __builtin_memcpy(marks, &mask, sizeof marks);
    for (int i = 0; i < 2; i++) {
      uint64_t bits = (uint32_t)_mm256_movemask_ps((__m256)marks[i]);
      uint64_t order = _pdep_u64(0x0706050403020100, _pdep_u64(bits, 0x0101010101010101) * 0xFF);
      __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)d->words));
      words = _mm256_permutevar8x32_epi32(words, _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)order)));
      words = _mm256_or_si256(_mm256_slli_epi32(half[i], 16), words);
      half[i] = _mm256_blendv_epi8(half[i], words, marks[i]);
      d->words += 2 * __builtin_popcountll(bits);
    }
    __builtin_memcpy(&x, half, sizeof half);
    return x;
  }
#endif
  uint32_t lanes[LANES], marks[LANES];
  __builtin_memcpy(lanes, &x, sizeof lanes);
  __builtin_memcpy(marks, &mask, sizeof marks);
  if (d->words_end - d->words >= 32) {
    // Without a branch that cannot be foreseen.
    for (int i = 0; i < LANES; i++) {
      uint16_t word;
      __builtin_memcpy(&word, d->words, 2);
      lanes[i] = marks[i] ? lanes[i] << 16 | word : lanes[i];
      d->words += 2 & marks[i];
    }
  } else {
    for (int i = 0; i < LANES; i++) {
      if (!marks[i]) continue;
      uint16_t word = 0;
      if (d->words_end - d->words >= 2) {
        __builtin_memcpy(&word, d->words, 2);
        d->words += 2;
      } else {
        d->overrun++;
      }
      lanes[i] = lanes[i] << 16 | word;
    }
  }
  __builtin_memcpy(&x, lanes, sizeof lanes);
  return x;
}

// The next tokens, of the lanes that take part. Slots: token, frequency - 1 << 6, place within the token's slots << 17.
INLINE vu take_lanes(xp_entropy_decoder *d, vu *state, vu context, vu active) {
  vu x = *state, slot = gather(d->slots, (context << RANS_BITS) | (x & ((1u << RANS_BITS) - 1)));
  vu next = ((slot >> 6 & ((1u << RANS_BITS) - 1)) + 1) * (x >> RANS_BITS) + (slot >> 17);
  next = (next & active) | (x & ~active);
  *state = take_words(d, next, (vu)((vi)next < (1 << RANS_LOW)) & active);
  return slot & (TOKENS - 1);
}

INLINE void refill(xp_entropy_decoder *d) {
  if (d->bits_end - d->bits >= 8) {
    uint64_t next;
    __builtin_memcpy(&next, d->bits, 8);
    d->buffer |= next << d->count;
    d->bits += (63 - d->count) >> 3;
    d->count |= 56;
    return;
  }
  for (; d->count <= 56; d->count += 8) {
    if (d->bits < d->bits_end) d->buffer |= (uint64_t)*d->bits++ << d->count;
    else d->beyond++;
  }
}

INLINE uint32_t take_bits(xp_entropy_decoder *d, uint32_t count) {
  uint32_t value = (uint32_t)d->buffer & ((1u << count) - 1);
  d->buffer >>= count;
  d->count -= (int32_t)count;
  return value;
}

// The magnitude of a token that leaves bits open; its sign is the next one.
INLINE uint32_t open_magnitude(xp_entropy_decoder *d, uint32_t token) {
  refill(d);
  uint32_t open = 3 + ((token - OPEN_TOKEN) >> 1);
  return (2 + ((token - OPEN_TOKEN) & 1)) << open | take_bits(d, open);
}

// The float of a token that is not direct; one that is not finite was never encoded.
static __attribute__((noinline)) float take_large(xp_entropy_decoder *d, uint32_t token, float step) {
  uint32_t bits;
  float value;
  if (token >= RAW_TOKEN) {
    refill(d);
    bits = take_bits(d, 16);
    bits |= take_bits(d, 16) << 16;
  } else {
    uint32_t m;
    if (token == LONG_TOKEN) {
      refill(d);
      uint32_t octave = LONG_OCTAVE + take_bits(d, LONG_OCTAVE_BITS);
      m = 1u << octave | take_bits(d, octave);
    } else {
      m = open_magnitude(d, token);
    }
    value = (float)m * step;
    __builtin_memcpy(&bits, &value, 4);
    bits |= take_bits(d, 1) << 31;
  }
  if ((bits & 0x7F800000) == 0x7F800000) d->overrun++;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// Floats of a run: levels are what the tokens of a context stand for, in steps.
static void entropy_decode(float *out, size_t n, xp_entropy_decoder *d, const uint8_t *contexts, float step) {
  // Copies, so that what changes stays in registers.
  xp_entropy_decoder local = *d;
  vu state;
  __builtin_memcpy(&state, d->states, sizeof state);
  for (size_t i = 0; i < n; i += LANES) {
    size_t count = n - i < LANES ? n - i : LANES;
    vu c = widen(contexts + i, count), active = lanes_below(count);
    vu tokens = take_lanes(&local, &state, c, active);
    vf values = (vf)gather((const word_any *)local.levels, c * TOKENS + tokens) * step;
    if (count == LANES) store(out + i, values);
    else store_tail(out + i, values, count);
    uint32_t some = mask_bits((vu)(tokens >= OPEN_TOKEN) & active);
    for (; __builtin_expect(some != 0, 0); some &= some - 1) {
      size_t lane = (size_t)__builtin_ctz(some);
      xp_entropy_decoder copy = local;
      out[i + lane] = take_large(&copy, tokens[lane], step);
      local = copy;
    }
  }
  __builtin_memcpy(local.states, &state, sizeof state);
  *d = local;
}

// Integers know no escapes.
static void entropy_decode_integers(int32_t *out, size_t n, xp_entropy_decoder *d, uint8_t context) {
  vu state;
  __builtin_memcpy(&state, d->states, sizeof state);
  for (size_t i = 0; i < n; i += LANES) {
    size_t count = n - i < LANES ? n - i : LANES;
    vu tokens = take_lanes(d, &state, (vu){} + context, lanes_below(count));
    for (size_t lane = 0; lane < count; lane++) {
      uint32_t token = tokens[lane];
      if (token >= LONG_TOKEN) d->overrun++, token = 0;
      uint32_t m = (token + 1) / 2, negative = token > 0 && token % 2 == 0;
      if (token >= OPEN_TOKEN) m = open_magnitude(d, token), negative = take_bits(d, 1);
      out[i + lane] = negative ? -(int32_t)m : (int32_t)m;
    }
  }
  __builtin_memcpy(d->states, &state, sizeof state);
}
