// Rows as smaller floats: bfloat16, IEEE half, E4M3. Round to nearest, ties to even; NaN stays NaN.
// Encoded bytes may lie at any address.

typedef uint16_t vh __attribute__((vector_size(32)));
typedef uint16_t vh_any __attribute__((vector_size(32), aligned(1), may_alias));

INLINE vu bits_of(vf v) { return (vu)v; }

INLINE vu to_bf16(vf x) {
  vu bits = bits_of(x);
  vu rounded = (bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16;
  vu nan = (vu)((bits & 0x7FFFFFFFu) > 0x7F800000u);
  return choose(nan, (bits >> 16) | 0x40u, rounded);
}

INLINE vf from_bf16(vu code) { return (vf)(code << 16); }

// Halves below 2^-14 are rounded by an addition that aligns them with 2^-24.
INLINE vu to_fp16(vf x) {
  vu bits = bits_of(x), magnitude = bits & 0x7FFFFFFFu, sign = (bits >> 16) & 0x8000u;
  vu normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1)) >> 13;
  vu tiny = bits_of((vf)magnitude + 0.5f) - 0x3F000000u;
  vu code = choose((vu)(magnitude < 0x38800000u), tiny, normal);
  code = choose((vu)(magnitude >= 0x477FF000u), (vu){} + 0x7C00u, code);
  vu nan = 0x7E00u | ((magnitude >> 13) & 0x3FFu);
  return sign | choose((vu)(magnitude > 0x7F800000u), nan, code);
}

INLINE vf from_fp16(vu code) {
  vu magnitude = (code & 0x7FFFu) << 13;
  vu finite = bits_of((vf)magnitude * 0x1p112f);
  vu special = magnitude | 0x7F800000u;
  return (vf)(((code & 0x8000u) << 16) | choose((vu)(magnitude >= 0x0F800000u), special, finite));
}

// E4M3 without infinities: largest value 448, NaN is 0x7F. Values beyond 448 saturate.
INLINE vu to_e4m3(vf x) {
  vu bits = bits_of(x), magnitude = bits & 0x7FFFFFFFu, sign = (bits >> 24) & 0x80u;
  vu capped = choose((vu)(magnitude > 0x43E00000u), (vu){} + 0x43E00000u, magnitude);
  vu normal = (capped - 0x3C000000u + 0x7FFFFu + ((capped >> 20) & 1)) >> 20;
  vu tiny = bits_of((vf)capped + 0x1p14f) - 0x46800000u;
  vu code = choose((vu)(capped < 0x3C800000u), tiny, normal);
  return sign | choose((vu)(magnitude > 0x7F800000u), (vu){} + 0x7Fu, code);
}

INLINE vf from_e4m3(vu code) {
  vu magnitude = code & 0x7Fu;
  vu finite = bits_of((vf)(magnitude << 20) * 0x1p120f);
  return (vf)(((code & 0x80u) << 24) | choose((vu)(magnitude == 0x7Fu), (vu){} + 0x7FC00000u, finite));
}

INLINE void store_halves(uint8_t *out, vu code) { *(vh_any *)out = __builtin_convertvector(code, vh); }
INLINE vu load_halves(const uint8_t *in) { return __builtin_convertvector((vh) * (const vh_any *)in, vu); }
INLINE void store_bytes(uint8_t *out, vu code) { *(vb_any *)out = __builtin_convertvector(code, vb); }
INLINE vu load_bytes(const uint8_t *in) { return __builtin_convertvector((vb) * (const vb_any *)in, vu); }

// One loop for every element type: whole vectors, then a tail through a small buffer.
#define FLOAT_CODEC(NAME, WIDTH, STORE, LOAD, ENCODE, DECODE)                               \
  static void NAME##_encode(void *out, const float *x, size_t n, float factor) {            \
    uint8_t *bytes = out, rest[LANES * WIDTH];                                              \
    size_t i = 0;                                                                           \
    for (; i + LANES <= n; i += LANES) STORE(bytes + i * WIDTH, ENCODE(load(x + i) * factor)); \
    if (i == n) return;                                                                     \
    STORE(rest, ENCODE(load_tail(x + i, n - i) * factor));                                  \
    __builtin_memcpy(bytes + i * WIDTH, rest, (n - i) * WIDTH);                             \
  }                                                                                         \
  static void NAME##_decode(float *out, const void *in, size_t n, float factor) {           \
    const uint8_t *bytes = in;                                                              \
    uint8_t rest[LANES * WIDTH] = {0};                                                      \
    size_t i = 0;                                                                           \
    for (; i + LANES <= n; i += LANES) store(out + i, DECODE(LOAD(bytes + i * WIDTH)) * factor); \
    if (i == n) return;                                                                     \
    __builtin_memcpy(rest, bytes + i * WIDTH, (n - i) * WIDTH);                             \
    vf v = DECODE(LOAD(rest)) * factor;                                                     \
    __builtin_memcpy(out + i, &v, (n - i) * sizeof(float));                                 \
  }

FLOAT_CODEC(bf16, 2, store_halves, load_halves, to_bf16, from_bf16)
FLOAT_CODEC(fp16, 2, store_halves, load_halves, to_fp16, from_fp16)
FLOAT_CODEC(e4m3, 1, store_bytes, load_bytes, to_e4m3, from_e4m3)

// The place of the first bfloat16 that is NaN or infinite: its exponent bits are all ones.
static size_t bf16_first_nonfinite(const void *in, size_t n) {
  const uint16_t exponent = 0x7F80;
  const uint8_t *bytes = in;
  size_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) {
    vh bad = {};
    for (size_t j = 0; j < 4 * LANES; j += LANES)
      bad |= (vh)((*(const vh_any *)(bytes + 2 * (i + j)) & exponent) == exponent);
    if (__builtin_reduce_or(bad)) break;
  }
  for (; i < n; i++) {
    uint16_t bits;
    __builtin_memcpy(&bits, bytes + 2 * i, sizeof bits);
    if ((bits & exponent) == exponent) return i;
  }
  return n;
}
