// Stochastic rounding: every element becomes one of the two values of a format that enclose it, at random, such that the
// mean is the element. What comes out is then encoded by rounding to nearest, which finds just these values.
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

// Levels +-positive[0 ..< count], ascending; x * factor lies within them. What comes out are levels.
static void dither_levels(float *out, const float *x, size_t n, float factor, const float *positive, size_t count_of_levels,
                          uint64_t key) {
  float least = positive[0];
  FOR_EACH_NUMBERED({
    vf u = uniform_of(counter, key);
    v *= factor;
    vf magnitude = (vf)(bits_of(v) & 0x7FFFFFFFu);
    // Between the two levels next to zero, or between two of the same sign.
    vf low = splat(-least), high = splat(least);
    for (size_t level = 0; level + 1 < count_of_levels; level++) {
      vu above = (vu)(magnitude >= positive[level]);
      low = (vf)choose(above, bits_of(splat(positive[level])), bits_of(low));
      high = (vf)choose(above, bits_of(splat(positive[level + 1])), bits_of(high));
    }
    vf chosen = (vf)choose((vu)(u * (high - low) < magnitude - low), bits_of(high), bits_of(low));
    v = (vf)(bits_of(chosen) ^ (bits_of(v) & 0x80000000u));
  })
}

// Values of E4M3, of x * factor, which lies within -448 ... 448. Below 2^-6 they are 2^-9 apart, as they are from there to 2^-5.
static void dither_e4m3(float *out, const float *x, size_t n, float factor, uint64_t key) {
  FOR_EACH_NUMBERED({
    vf u = uniform_of(counter, key);
    v *= factor;
    vu sign = bits_of(v) & 0x80000000u;
    vf magnitude = (vf)(bits_of(v) & 0x7FFFFFFFu);
    vu noise = (vu)__builtin_convertvector(u * 0x1p20f, vi);
    vu tiny = (vu)(magnitude < 0x1p-6f);
    vf lifted = (vf)choose(tiny, bits_of(magnitude + 0x1p-6f), bits_of(magnitude));
    vf rounded = (vf)((bits_of(lifted) + noise) & ~0xFFFFFu);
    v = (vf)(sign | choose(tiny, bits_of(rounded - 0x1p-6f), bits_of(rounded)));
  })
}

// Random signs; done twice, the row itself.
static void flip_signs(float *out, const float *x, size_t n, uint64_t key) {
  FOR_EACH_NUMBERED(v = (vf)(bits_of(v) ^ (random_of(counter, key) & 0x80000000u));)
}
