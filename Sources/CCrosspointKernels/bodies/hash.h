// Cross-polytope ids: for each function the largest coordinate of its block by magnitude, and that coordinate's sign.

// Magnitudes compare as integers: every float has its place, NaN above infinity, so that any row has one answer.
INLINE vi magnitude(vf v) { return (vi)v & INT32_MAX; }

INLINE uint32_t largest_coordinate(const float *y, const float *mean, size_t width) {
  const vi iota = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  int32_t best = -1, where = 0;
  size_t i = 0;
  if (width >= LANES) {
    vi bests = (vi){} - 1, places = {};
    for (; i + LANES <= width; i += LANES) {
      vf v = load(y + i);
      if (mean) v -= load(mean + i);
      vi size = magnitude(v);
      places = (vi)choose((vu)(size > bests), (vu)(iota + (int32_t)i), (vu)places);
      bests = __builtin_elementwise_max(bests, size);
    }
    // The largest lane, then the lowest place among the lanes that hold it.
    best = __builtin_reduce_max(bests);
    places = (vi)choose((vu)(bests == best), (vu)places, (vu){} + INT32_MAX);
    where = __builtin_reduce_min(places);
  }
  for (; i < width; i++) {
    float v = mean ? y[i] - mean[i] : y[i];
    int32_t size;
    __builtin_memcpy(&size, &v, sizeof size);
    size &= INT32_MAX;
    if (size > best) {
      best = size;
      where = (int32_t)i;
    }
  }
  float winner = mean ? y[where] - mean[where] : y[where];
  return (uint32_t)where + (winner < 0 ? (uint32_t)width : 0);
}

static void cross_polytope(uint32_t *ids, const float *y, const float *mean, size_t width, size_t functions) {
  if (mean)
    for (size_t f = 0; f < functions; f++) ids[f] = largest_coordinate(y + f * width, mean + f * width, width);
  else
    for (size_t f = 0; f < functions; f++) ids[f] = largest_coordinate(y + f * width, NULL, width);
}
