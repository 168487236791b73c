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

// Sums over a row. Four vectors take turns, so that no addition waits for the one before; what is left over goes to the
// first, and a fixed tree ends it.
#define WHOLE(p) load((p) + i)
#define REST(p) load_tail((p) + i, n - i)
#define RETURN_SUM(TERM)                                              \
  vf totals[4] = {};                                                  \
  size_t i = 0;                                                       \
  while (i + 4 * LANES <= n)                                          \
    for (int k = 0; k < 4; k++, i += LANES) totals[k] += TERM(WHOLE); \
  for (; i + LANES <= n; i += LANES) totals[0] += TERM(WHOLE);        \
  if (i < n) totals[0] += TERM(REST);                                 \
  return sum_of(totals);

INLINE float sum_of(const vf *totals) { return sum((totals[0] + totals[1]) + (totals[2] + totals[3])); }

INLINE vf square(vf v) { return v * v; }

static float dot(const float *x, const float *y, size_t n) {
#define TERM(at) at(x) * at(y)
  RETURN_SUM(TERM)
#undef TERM
}

static float dot_difference(const float *y, const float *x, const float *c, size_t n) {
#define TERM(at) at(y) * (at(x) - at(c))
  RETURN_SUM(TERM)
#undef TERM
}

static float squared_distance(const float *x, const float *c, size_t n) {
#define TERM(at) square(at(x) - at(c))
  RETURN_SUM(TERM)
#undef TERM
}

static float weighted_squares(const float *x, const float *w, size_t n) {
#define TERM(at) square(at(x) * at(w))
  RETURN_SUM(TERM)
#undef TERM
}

// One vector of a row on its way to out, without its mean; its squares.
INLINE vf centre_vector(float *out, const float *x, const float *mean) {
  vf v = load(x);
  if (mean) v -= load(mean);
  store(out, v);
  return square(v);
}

// The order of additions is that of `dot`.
static float centre(float *out, const float *x, const float *mean, size_t n) {
  vf totals[4] = {};
  size_t i = 0;
  while (i + 4 * LANES <= n)
    for (int k = 0; k < 4; k++, i += LANES) totals[k] += centre_vector(out + i, x + i, mean ? mean + i : NULL);
  for (; i + LANES <= n; i += LANES) totals[0] += centre_vector(out + i, x + i, mean ? mean + i : NULL);
  if (i < n) {
    vf v = load_tail(x + i, n - i);
    if (mean) v -= load_tail(mean + i, n - i);
    totals[0] += square(v);
    for (size_t lane = 0; i + lane < n; lane++) out[i + lane] = v[lane];
  }
  return sum_of(totals);
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
    for (size_t j = 0; j < 4 * LANES; j += LANES) {
      vi bits = *(const vi_any *)(x + i + j);
      bad |= (bits & exponent) == exponent;
    }
    int32_t any = 0;
    for (int lane = 0; lane < LANES; lane++) any |= bad[lane];
    if (any) break;
  }
  for (; i < n; i++) {
    int32_t bits;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    if ((bits & exponent) == exponent) return i;
  }
  return n;
}
