// The centroid nearest to x: the largest <x, c> - |c|^2 / 2, the lowest index among equals; half_norms holds |c|^2 / 2.
// Four centroids at a time share the loads of x.
static size_t nearest(const float *x, const float *centroids, const float *half_norms, size_t count, size_t n) {
  size_t best = 0;
  float best_score = -__builtin_inff();
  for (size_t j = 0; j < count; j += 4) {
    size_t width = count - j < 4 ? count - j : 4;
    const float *c[4];
    for (size_t k = 0; k < 4; k++) c[k] = centroids + (j + (k < width ? k : 0)) * n;
    vf total[4] = {};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
      vf row = load(x + i);
      for (size_t k = 0; k < 4; k++) total[k] += row * load(c[k] + i);
    }
    if (i < n) {
      vf row = load_tail(x + i, n - i);
      for (size_t k = 0; k < 4; k++) total[k] += row * load_tail(c[k] + i, n - i);
    }
    for (size_t k = 0; k < width; k++) {
      float score = sum(total[k]) - half_norms[j + k];
      if (score > best_score) best_score = score, best = j + k;
    }
  }
  return best;
}
