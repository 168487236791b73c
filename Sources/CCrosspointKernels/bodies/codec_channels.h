// Scales per channel (column) of a group of rows.

// most = max(most, |x|), lane by lane; as integers NaN lies above infinity and stays.
static void fold_magnitudes(float *most, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vi magnitude = (vi)load(x + i) & 0x7FFFFFFF;
    store(most + i, (vf)__builtin_elementwise_max(magnitude, (vi)load(most + i)));
  }
  for (; i < n; i++) {
    int32_t magnitude, old;
    __builtin_memcpy(&magnitude, x + i, 4);
    __builtin_memcpy(&old, most + i, 4);
    magnitude &= 0x7FFFFFFF;
    if (magnitude > old) __builtin_memcpy(most + i, &magnitude, 4);
  }
}

static void multiply_rows(float *out, const float *x, const float *y, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(out + i, load(x + i) * load(y + i));
  for (; i < n; i++) out[i] = x[i] * y[i];
}
