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

// The order of additions is that of `dot`.
static float centre(float *out, const float *x, const float *mean, size_t n) {
  vf total = {};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf v = load(x + i);
    if (mean) v -= load(mean + i);
    store(out + i, v);
    total += v * v;
  }
  if (i < n) {
    vf v = load_tail(x + i, n - i);
    if (mean) v -= load_tail(mean + i, n - i);
    for (size_t lane = 0; i + lane < n; lane++) out[i + lane] = v[lane];
    total += v * v;
  }
  return sum(total);
}

static float dot(const float *x, const float *y, size_t n) {
  vf total = {};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) total += load(x + i) * load(y + i);
  if (i < n) total += load_tail(x + i, n - i) * load_tail(y + i, n - i);
  return sum(total);
}

static float dot_difference(const float *y, const float *x, const float *c, size_t n) {
  vf total = {};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) total += load(y + i) * (load(x + i) - load(c + i));
  if (i < n) total += load_tail(y + i, n - i) * (load_tail(x + i, n - i) - load_tail(c + i, n - i));
  return sum(total);
}

static float squared_distance(const float *x, const float *c, size_t n) {
  vf total = {};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf difference = load(x + i) - load(c + i);
    total += difference * difference;
  }
  if (i < n) {
    vf difference = load_tail(x + i, n - i) - load_tail(c + i, n - i);
    total += difference * difference;
  }
  return sum(total);
}

static void axpy_squares(float *out, float a, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf v = a * load(x + i);
    store(out + i, load(out + i) + v * v);
  }
  for (; i < n; i++) out[i] = out[i] + (a * x[i]) * (a * x[i]);
}

static float weighted_squares(const float *x, const float *w, size_t n) {
  vf total = {};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vf v = load(x + i) * load(w + i);
    total += v * v;
  }
  if (i < n) {
    vf v = load_tail(x + i, n - i) * load_tail(w + i, n - i);
    total += v * v;
  }
  return sum(total);
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
