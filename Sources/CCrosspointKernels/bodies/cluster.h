// Buckets of equal ids, and the mean row of each.

// Numbers the distinct id tuples 0, 1, ... in order of first appearance. Member i has the `functions` ids at row
// rows[i] of `ids`, or at row i where rows is NULL. `table` has slots entries, a power of two above count; it holds
// the first member of each bucket, and ids are compared, so that no accident of hashing joins two buckets.
static size_t group(int32_t *bucket_of, const uint32_t *ids, size_t functions, const int32_t *rows, size_t count,
                    int32_t *table, size_t slots) {
  size_t buckets = 0;
  __builtin_memset(table, 0xFF, slots * sizeof *table);
  for (size_t i = 0; i < count; i++) {
    const uint32_t *mine = ids + (rows ? (size_t)rows[i] : i) * functions;
    uint64_t hash = 0;
    for (size_t f = 0; f < functions; f++) hash = (hash ^ mine[f]) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
    for (size_t slot = hash & (slots - 1);; slot = (slot + 1) & (slots - 1)) {
      int32_t first = table[slot];
      if (first < 0) {
        table[slot] = (int32_t)i;
        bucket_of[i] = (int32_t)buckets++;
        break;
      }
      const uint32_t *other = ids + (rows ? (size_t)rows[first] : (size_t)first) * functions;
      if (__builtin_memcmp(mine, other, functions * sizeof *mine) == 0) {
        bucket_of[i] = bucket_of[first];
        break;
      }
    }
  }
  return buckets;
}

// Means in member order; a bucket of one gets its member bit for bit.
static void centroids(float *out, int32_t *counts, size_t buckets, const float *x, size_t n, const int32_t *rows,
                      const int32_t *bucket_of, size_t count) {
  __builtin_memset(counts, 0, buckets * sizeof *counts);
  for (size_t i = 0; i < count; i++) {
    const float *row = x + (size_t)rows[i] * n;
    float *mean = out + (size_t)bucket_of[i] * n;
    if (counts[bucket_of[i]]++ == 0) __builtin_memcpy(mean, row, n * sizeof *row);
    else axpy(mean, 1, row, n);
  }
  for (size_t j = 0; j < buckets; j++)
    if (counts[j] > 1) scale(out + j * n, 1.0f / (float)counts[j], out + j * n, n);
}

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
