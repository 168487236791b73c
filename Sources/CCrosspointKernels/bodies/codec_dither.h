// Random numbers of rows: noise of one step, and signs.
//
// The random number of element i is a hash of i and the row's key: no order, no state, the same in every variant.

// The mixer is "lowbias32" (C. Wellons, hash-prospector), keyed between its steps.
INLINE vu random_of(vu counter, uint64_t key) {
  vu x = counter * 0x9E3779B9u + (uint32_t)key;
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= (uint32_t)(key >> 32);
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ (x >> 16);
}

// 24 random bits, over 2^24: in [0, 1).
INLINE vf uniform_of(vu counter, uint64_t key) {
  return __builtin_convertvector((vi)(random_of(counter, key) >> 8), vf) * 0x1p-24f;
}

// Calls the body with 16 elements v and their numbers; stores what it leaves in v.
#define FOR_EACH_NUMBERED(...)                                    \
  vu counter = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};  \
  for (size_t i = 0; i < n; i += LANES, counter += LANES) {             \
    size_t count = n - i < LANES ? n - i : LANES;                       \
    vf v = count == LANES ? load(x + i) : load_tail(x + i, count);      \
    __VA_ARGS__                                                         \
    if (count == LANES) store(out + i, v);                              \
    else __builtin_memcpy(out + i, &v, count * sizeof(float));          \
  }

// Even steps: noise of one step, from -step / 2 to step / 2.
static void dither_uniform(float *out, const float *x, size_t n, float step, uint64_t key) {
  FOR_EACH_NUMBERED(v += (uniform_of(counter, key) - 0.5f) * step;)
}

// Random signs; done twice, the row itself.
static void flip_signs(float *out, const float *x, size_t n, uint64_t key) {
  FOR_EACH_NUMBERED(v = (vf)(bits_of(v) ^ (random_of(counter, key) & 0x80000000u));)
}
