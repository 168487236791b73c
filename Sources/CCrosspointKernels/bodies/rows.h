// Row arithmetic: what combine and the backward passes are made of.

static void scale(float *out, float a, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(out + i, a * load(x + i));
  for (; i < n; i++) out[i] = a * x[i];
}

static void axpy(float *out, float a, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(out + i, load(out + i) + a * load(x + i));
  for (; i < n; i++) out[i] = out[i] + a * x[i];
}

static void axpy_difference(float *out, float a, const float *x, const float *c, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(out + i, load(out + i) + a * (load(x + i) - load(c + i)));
  for (; i < n; i++) out[i] = out[i] + a * (x[i] - c[i]);
}

// Sums over a row, which may write one meanwhile. Four vectors take turns, so that no addition waits for the one before;
// what is left over goes to the first, and a fixed tree ends it.
#define GET(p) load((p) + i)
#define PUT(p, v) store((p) + i, v)
#define GET_TAIL(p) load_tail((p) + i, n - i)
#define PUT_TAIL(p, v) store_tail((p) + i, v, n - i)
#define RETURN_SUM(TERM)                                                  \
  vf totals[4] = {};                                                      \
  size_t i = 0;                                                           \
  while (i + 4 * LANES <= n)                                              \
    for (int k = 0; k < 4; k++, i += LANES) totals[k] += TERM(GET, PUT);  \
  for (; i + LANES <= n; i += LANES) totals[0] += TERM(GET, PUT);         \
  if (i < n) totals[0] += TERM(GET_TAIL, PUT_TAIL);                       \
  return sum((totals[0] + totals[1]) + (totals[2] + totals[3]));

INLINE vf square(vf v) { return v * v; }

static float dot(const float *x, const float *y, size_t n) {
#define TERM(get, put) get(x) * get(y)
  RETURN_SUM(TERM)
#undef TERM
}

static float dot_difference(const float *y, const float *x, const float *c, size_t n) {
#define TERM(get, put) get(y) * (get(x) - get(c))
  RETURN_SUM(TERM)
#undef TERM
}

static float squared_distance(const float *x, const float *c, size_t n) {
#define TERM(get, put) square(get(x) - get(c))
  RETURN_SUM(TERM)
#undef TERM
}

static float weighted_squares(const float *x, const float *w, size_t n) {
#define TERM(get, put) square(get(x) * get(w))
  RETURN_SUM(TERM)
#undef TERM
}

static float centre(float *out, const float *x, const float *mean, size_t n) {
#define TERM(get, put) \
  ({ vf v = mean ? get(x) - get(mean) : get(x); put(out, v); square(v); })
  RETURN_SUM(TERM)
#undef TERM
}

static float accumulate(float *out, const float *x, size_t n) {
#define TERM(get, put) \
  ({ vf v = get(x); put(out, get(out) + v); square(v); })
  RETURN_SUM(TERM)
#undef TERM
}

static void axpy_squares(float *out, float a, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf v = a * load(x + i);
    store(out + i, load(out + i) + v * v);
  }
  for (; i < n; i++) out[i] = out[i] + (a * x[i]) * (a * x[i]);
}

// NaN and infinity are the values whose exponent bits are all ones.
static size_t first_nonfinite(const float *x, size_t n) {
  const int32_t exponent = 0x7F800000;
  size_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) {
    vi bad = {};
    for (size_t j = 0; j < 4 * LANES; j += LANES) bad |= ((vi)load(x + i + j) & exponent) == exponent;
    if (__builtin_reduce_or(bad)) break;
  }
  for (; i < n; i++) {
    int32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    if ((bits & exponent) == exponent) return i;
  }
  return n;
}

static size_t count_above(const float *x, int32_t bound, size_t n) {
  size_t count = 0, i = 0;
  for (; i + LANES <= n; i += LANES) count += count_lanes((vu)((vi)load(x + i) > bound));
  return i < n ? count + count_lanes((vu)((vi)load_tail(x + i, n - i) > bound)) : count;
}

static float sum_above(const float *x, int32_t bound, size_t n) {
#define TERM(get, put) ({ vf v = get(x); (vf)((vi)v & ((vi)v > bound)); })
  RETURN_SUM(TERM)
#undef TERM
}

// Floats that are not negative have the order of their bits: a bound is halved until it parts the k largest from the rest,
// or until those at the bound are all the same.
static float sum_of_largest(const float *x, size_t n, size_t k) {
  if (k >= n) return sum_above(x, 0, n);
  vi most = {}, least = (vi){} + INT32_MAX;
  for (size_t i = 0; i < n; i += LANES) {
    vi bits = (vi)(i + LANES <= n ? load(x + i) : load_tail(x + i, n - i));
    most = __builtin_elementwise_max(most, bits);
    least = __builtin_elementwise_min(least, bits);
  }
  int32_t low = __builtin_reduce_min(least) - 1, high = __builtin_reduce_max(most);
  size_t above = 0;
  while (above < k && high - low > 1) {
    int32_t middle = low + (high - low) / 2;
    size_t count = count_above(x, middle, n);
    if (count > k) {
      low = middle;
    } else {
      high = middle;
      above = count;
    }
  }
  float bound;
  __builtin_memcpy(&bound, &high, sizeof bound);
  return sum_above(x, high, n) + (float)(k - above) * bound;
}
