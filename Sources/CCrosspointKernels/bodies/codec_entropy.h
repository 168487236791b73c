// Integers as range-coded tokens (asymmetric numeral systems, rANS: J. Duda, arXiv 1311.2540) and plain bits.
//
// An integer is a token for its magnitude, then, as plain bits, what the token leaves open and the sign. Magnitudes below
// 8 are their own tokens; above, each octave up to 2^16 has four. Two escapes reach beyond: long magnitudes, below 2^24,
// and raw floats for what has no magnitude that a float could tell from the floats next to it. A token is coded under a context, a table of frequencies that sum
// to 2^11. Eight states take turns: token i of a run belongs to state i mod 8, so that their latencies overlap. Words of
// 16 bits are read forwards and hence written backwards. Only integers decide what is read; a decoder given noise reads
// zeros beyond the end and says so.

enum { RANS_BITS = 11, RANS_STATES = 8, PLAIN_TOKENS = 8, TOKENS = 64 };

// A long magnitude is three bits of octave - LONG_OCTAVE, the bits below its top bit, and the sign.
enum { LONG_TOKEN = 60, RAW_TOKEN = 61, LONG_OCTAVE = 16, LONG_OCTAVE_BITS = 3 };
#define FIRST_LONG 0x1p16f
#define FIRST_RAW 0x1p24f

INLINE uint32_t token_of(uint32_t m) {
  if (m < PLAIN_TOKENS) return m;
  uint32_t octave = 31 - (uint32_t)__builtin_clz(m);
  return PLAIN_TOKENS + 4 * (octave - 3) + ((m >> (octave - 2)) & 3);
}

INLINE uint32_t open_bits(uint32_t token) { return token < PLAIN_TOKENS ? 0 : 1 + ((token - PLAIN_TOKENS) >> 2); }

// A class for every float: that of its column plus that of its row, kept within the tables.
static void entropy_contexts(uint8_t *out, const uint8_t *columns, size_t n, const xp_entropy_scale *scale) {
  for (size_t i = 0; i < n; i++) {
    int32_t c = columns[i] + scale->offset;
    c = c < 0 ? 0 : c > scale->last ? scale->last : c;
    out[i] = (uint8_t)(scale->first + (c >> scale->shift));
  }
}

INLINE void put_bits(xp_entropy_writer *w, uint32_t value, uint32_t count) {
  w->buffer |= (uint64_t)value << w->count;
  w->count += (int32_t)count;
  __builtin_memcpy(w->bits, &w->buffer, 8);
  w->bits += w->count >> 3;
  w->buffer >>= w->count & ~7;
  w->count &= 7;
}

INLINE void put_token(uint8_t *token, xp_entropy_writer *w, uint32_t *count, uint32_t m, uint32_t negative) {
  uint32_t t = token_of(m);
  count[t]++;
  if (!w) return;
  *token = (uint8_t)t;
  if (!m) return;
  uint32_t open = open_bits(t);
  put_bits(w, (m & ((1u << open) - 1)) | negative << open, open + 1);
}

// A float that is too many steps for the ordinary tokens: top steps, or raw where those are too many as well.
static __attribute__((noinline)) void put_escape(uint8_t *token, xp_entropy_writer *w, uint32_t *counts, float top,
                                                 uint32_t bits) {
  int is_long = top < FIRST_RAW;
  uint8_t t = is_long ? LONG_TOKEN : RAW_TOKEN;
  counts[t]++;
  if (!w) return;
  *token = t;
  if (!is_long) return put_bits(w, bits, 32);
  uint32_t m = (uint32_t)top, octave = 31 - (uint32_t)__builtin_clz(m);
  put_bits(w, octave - LONG_OCTAVE, LONG_OCTAVE_BITS);
  put_bits(w, (m & ((1u << octave) - 1)) | (bits >> 31) << octave, octave + 1);
}

// Tokens of y / step, magnitudes rounded down after adding the context's rounding. Without a writer only the counts and sums are made: counts of tokens, and, for magnitudes of 1 and of 2 to 7, their number and by
// how much they exceed it.
static void entropy_quantise(uint8_t *tokens, xp_entropy_writer *w, uint32_t *counts, float *sums, const float *y, size_t n,
                             const uint8_t *contexts, const float *rounding, float inverse_step) {
  for (size_t i = 0; i < n; i++) {
    uint32_t c = contexts[i], bits;
    __builtin_memcpy(&bits, &y[i], 4);
    float a = __builtin_fabsf(y[i]) * inverse_step;
    float top = a + rounding[c];
    if (__builtin_expect(!(top < FIRST_LONG), 0)) {
      put_escape(tokens + i, w, counts + TOKENS * c, top, bits);
      continue;
    }
    uint32_t m = (uint32_t)top;
    if (m - 1 < PLAIN_TOKENS - 1) {
      float *s = sums + 4 * c + (m > 1 ? 2 : 0);
      s[0] += 1;
      s[1] += (float)m - a;
    }
    put_token(tokens + i, w, counts + TOKENS * c, m, bits >> 31);
  }
}

// Tokens of integers of at most 2^16 - 1 in magnitude.
static void entropy_tokens(uint8_t *tokens, xp_entropy_writer *w, uint32_t *counts, const int32_t *values, size_t n,
                           uint8_t context) {
  for (size_t i = 0; i < n; i++) {
    uint32_t negative = values[i] < 0, m = negative ? 0u - (uint32_t)values[i] : (uint32_t)values[i];
    put_token(tokens + i, w, counts + TOKENS * context, m, negative);
  }
}

// Codes a run of tokens, last first, in front of end; contexts NULL: all under the one given. Symbols: frequency, start << 16.
static uint8_t *entropy_encode(uint8_t *end, uint32_t *states, const uint8_t *tokens, size_t n, const uint8_t *contexts,
                               uint8_t context, const uint32_t *symbols) {
  for (size_t i = n; i-- > 0;) {
    uint32_t symbol = symbols[TOKENS * (contexts ? contexts[i] : context) + tokens[i]];
    uint32_t frequency = symbol & 0xFFFF, start = symbol >> 16, x = states[i % RANS_STATES];
    if ((uint64_t)x >= (uint64_t)frequency << (32 - RANS_BITS)) {
      end -= 2;
      uint16_t word = (uint16_t)x;
      __builtin_memcpy(end, &word, 2);
      x >>= 16;
    }
    uint32_t quotient = x / frequency;
    states[i % RANS_STATES] = (quotient << RANS_BITS) + (x - quotient * frequency) + start;
  }
  return end;
}

INLINE uint32_t take_token(xp_entropy_decoder *d, uint32_t *state, uint32_t context) {
  uint32_t x = *state, slot = x & ((1u << RANS_BITS) - 1);
  uint32_t token = d->slots[((size_t)context << RANS_BITS) + slot];
  uint32_t symbol = d->symbols[TOKENS * context + token];
  x = (symbol & 0xFFFF) * (x >> RANS_BITS) + slot - (symbol >> 16);
  if (x < 1u << 16) {
    uint16_t word = 0;
    if (d->words_end - d->words >= 2) {
      __builtin_memcpy(&word, d->words, 2);
      d->words += 2;
    } else {
      d->overrun++;
    }
    x = x << 16 | word;
  }
  *state = x;
  return token;
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

// The magnitude of a token above the plain ones.
INLINE uint32_t large_magnitude(xp_entropy_decoder *d, uint32_t token) {
  refill(d);
  uint32_t open = open_bits(token);
  return (4 + ((token - PLAIN_TOKENS) & 3)) << open | take_bits(d, open);
}

// The float of an escape; one that is not finite was never encoded.
static __attribute__((noinline)) float take_escape(xp_entropy_decoder *d, uint32_t token, float step) {
  refill(d);
  uint32_t bits;
  float value;
  if (token == LONG_TOKEN) {
    uint32_t octave = LONG_OCTAVE + take_bits(d, LONG_OCTAVE_BITS);
    value = (float)(1u << octave | take_bits(d, octave)) * step;
    __builtin_memcpy(&bits, &value, 4);
    bits |= take_bits(d, 1) << 31;
  } else {
    bits = take_bits(d, 16);
    bits |= take_bits(d, 16) << 16;
  }
  if ((bits & 0x7F800000) == 0x7F800000) d->overrun++;
  __builtin_memcpy(&value, &bits, 4);
  refill(d);
  return value;
}

// Floats of a run: (magnitude - what the context takes off) * step.
static void entropy_decode(float *out, size_t n, xp_entropy_decoder *d, const uint8_t *contexts, float step) {
  xp_entropy_decoder local = *d;
  uint32_t states[RANS_STATES];
  __builtin_memcpy(states, d->states, sizeof states);
  for (size_t i = 0; i < n; i += RANS_STATES) {
    uint32_t tokens[RANS_STATES];
    size_t count = n - i < RANS_STATES ? n - i : RANS_STATES;
    if (count == RANS_STATES)
#pragma clang loop unroll(full)
      for (size_t j = 0; j < RANS_STATES; j++) tokens[j] = take_token(&local, &states[j], contexts[i + j]);
    else
      for (size_t j = 0; j < count; j++) tokens[j] = take_token(&local, &states[j], contexts[i + j]);
    refill(&local);
    for (size_t j = 0; j < count; j++) {
      const float *levels = local.levels + PLAIN_TOKENS * contexts[i + j];
      float value;
      if (tokens[j] < PLAIN_TOKENS) value = levels[tokens[j]];
      else if (tokens[j] < LONG_TOKEN) value = (float)large_magnitude(&local, tokens[j]), refill(&local);
      else {
        // A copy, so that the decoder itself stays in registers.
        xp_entropy_decoder copy = local;
        out[i + j] = take_escape(&copy, tokens[j], step);
        local = copy;
        continue;
      }
      uint32_t sign = (uint32_t)local.buffer << 31, some = tokens[j] != 0, bits;
      value *= step;
      __builtin_memcpy(&bits, &value, 4);
      bits ^= sign & (0u - some);
      __builtin_memcpy(&out[i + j], &bits, 4);
      local.buffer >>= some;
      local.count -= (int32_t)some;
    }
  }
  __builtin_memcpy(local.states, states, sizeof states);
  *d = local;
}

// Integers know no escapes.
static void entropy_decode_integers(int32_t *out, size_t n, xp_entropy_decoder *d, uint8_t context) {
  for (size_t i = 0; i < n; i++) {
    uint32_t token = take_token(d, &d->states[i % RANS_STATES], context);
    if (token >= LONG_TOKEN) d->overrun++, token = 0;
    uint32_t m = token < PLAIN_TOKENS ? token : large_magnitude(d, token);
    refill(d);
    uint32_t negative = m ? take_bits(d, 1) : 0;
    out[i] = negative ? -(int32_t)m : (int32_t)m;
  }
}
