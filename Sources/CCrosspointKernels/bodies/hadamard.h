// The pseudo-rotation: random signs and an orthonormal Hadamard transform, a few rounds of it.
//
// A transform of p = 128 * 2^k floats has two halves that commute: "columns" mix the k upper bits of the index,
// "blocks" mix the 7 lower bits of 128 neighbours in registers. The last half of one round and the first half of the
// next are the same one, so that one sweep over memory does both, with the signs between: R rounds take R + 1 sweeps.
//
// The matrix is Sylvester's with its rows permuted: bits 0..2 of the row index change places with bits 4..6 (not for
// p < 128), because undoing that would cost shuffles and gain nothing. It stays symmetric and its own inverse.

#define BLOCK 128
#define BLOCK_VECTORS (BLOCK / LANES)

INLINE void butterfly(vf *a, vf *b) {
  vf difference = *a - *b;
  *a = *a + *b;
  *b = difference;
}

INLINE void butterflies(vf *v, int count) {
  for (int step = 1; step < count; step *= 2)
    for (int i = 0; i < count; i++)
      if (!(i & step)) butterfly(&v[i], &v[i | step]);
}

// Brings one bit of the lane index into the register index, and mixes it there.
#define LANE_STAGE(step, low, high)                              \
  for (int i = 0; i < BLOCK_VECTORS; i++)                        \
    if (!(i & step)) {                                           \
      vf a = v[i], b = v[i | step];                              \
      v[i] = __builtin_shufflevector(a, b, LIST low);            \
      v[i | step] = __builtin_shufflevector(a, b, LIST high);    \
      butterfly(&v[i], &v[i | step]);                            \
    }
#define LIST(...) __VA_ARGS__

INLINE void block(vf *v) {
  butterflies(v, BLOCK_VECTORS);
  LANE_STAGE(1, (0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
             (1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31))
  LANE_STAGE(2, (0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
             (1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31))
  LANE_STAGE(4, (0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
             (4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  const vi minus_upper = {0, 0, 0, 0, 0, 0, 0, 0, INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN,
                          INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
  for (int i = 0; i < BLOCK_VECTORS; i++) {
    vf swapped = __builtin_shufflevector(v[i], v[i], 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v[i] = swapped + (vf)((vi)v[i] ^ minus_upper);
  }
}

// Signs before, between and after the transforms of one sweep; NULL where there are none. Without `between` the sweep
// transforms once, with it twice.
typedef struct signs {
  const float *before, *between, *after;
} signs;

INLINE void multiply(vf *v, int count, const float *s, size_t stride) {
  if (s)
    for (int i = 0; i < count; i++) v[i] *= load(s + i * stride);
}

INLINE void columns_of(int count, float *x, size_t stride, signs s) {
  for (size_t c = 0; c < stride; c += LANES) {
    vf v[8];
    for (int i = 0; i < count; i++) v[i] = load(x + i * stride + c);
    multiply(v, count, s.before ? s.before + c : NULL, stride);
    butterflies(v, count);
    if (s.between) {
      multiply(v, count, s.between + c, stride);
      butterflies(v, count);
    }
    multiply(v, count, s.after ? s.after + c : NULL, stride);
    for (int i = 0; i < count; i++) store(x + i * stride + c, v[i]);
  }
}

static void columns(float *x, size_t count, size_t stride, signs s) {
  switch (count) {
    case 1: columns_of(1, x, stride, s); break;
    case 2: columns_of(2, x, stride, s); break;
    case 4: columns_of(4, x, stride, s); break;
    default: columns_of(8, x, stride, s); break;
  }
}

static void blocks(float *x, size_t p, signs s) {
  for (size_t c = 0; c < p; c += BLOCK) {
    vf v[BLOCK_VECTORS];
    for (int i = 0; i < BLOCK_VECTORS; i++) v[i] = load(x + c + i * LANES);
    multiply(v, BLOCK_VECTORS, s.before ? s.before + c : NULL, LANES);
    block(v);
    if (s.between) {
      multiply(v, BLOCK_VECTORS, s.between + c, LANES);
      block(v);
    }
    multiply(v, BLOCK_VECTORS, s.after ? s.after + c : NULL, LANES);
    for (int i = 0; i < BLOCK_VECTORS; i++) store(x + c + i * LANES, v[i]);
  }
}

// One round for p > 1024: the upper bits three at a time, then the blocks.
static void large_round(float *x, size_t p, const float *before, const float *after) {
  size_t count = p / BLOCK < 8 ? p / BLOCK : 8, stride = p / count;
  columns(x, count, stride, (signs){.before = before});
  for (size_t c = 0; c < p; c += stride) {
    const float *last = after ? after + c : NULL;
    if (stride == BLOCK)
      blocks(x + c, BLOCK, (signs){.after = last});
    else
      large_round(x + c, stride, NULL, last);
  }
}

// One round for p < 128.
static void small_round(float *x, size_t p, const float *before, const float *after) {
  if (before)
    for (size_t i = 0; i < p; i++) x[i] *= before[i];
  for (size_t step = 1; step < p; step *= 2)
    for (size_t i = 0; i < p; i++)
      if (!(i & step)) {
        float a = x[i], b = x[i | step];
        x[i] = a + b;
        x[i | step] = a - b;
      }
  if (after)
    for (size_t i = 0; i < p; i++) x[i] *= after[i];
}

// All rounds on p floats, forward (signs, then transform) or back (transform, then signs, last round first).
// s holds p signs for each round.
static void transform(float *x, size_t p, const float *s, int rounds, int back) {
  if (p < BLOCK || p > 8 * BLOCK) {
    for (int r = 0; r < rounds; r++) {
      const float *mine = s + (back ? rounds - 1 - r : r) * p;
      const float *before = back ? NULL : mine, *after = back ? mine : NULL;
      if (p < BLOCK) small_round(x, p, before, after);
      else large_round(x, p, before, after);
    }
    return;
  }
  for (int sweep = 0; sweep <= rounds; sweep++) {
    signs t = {};
    if (sweep == 0) t.before = back ? NULL : s;
    else if (sweep == rounds) t.after = back ? s : NULL;
    if (sweep > 0 && sweep < rounds) t.between = s + (back ? rounds - sweep : sweep) * p;
    // Alternating; forward ends with blocks, and back begins with them.
    if (((back ? sweep : rounds - sweep) & 1) == 0) blocks(x, p, t);
    else columns(x, p / BLOCK, BLOCK, t);
  }
}

// (a, b) -> (a + b, a - b) / sqrt 2 for the first and the last half of a row; the middle of an odd one stays.
static void join_halves(float *row, size_t n) {
  const float root = 0.70710678118654752f;
  float *a = row, *b = row + (n - n / 2);
  size_t i = 0;
  for (; i + LANES <= n / 2; i += LANES) {
    vf x = load(a + i), y = load(b + i);
    store(a + i, (x + y) * root);
    store(b + i, (x - y) * root);
  }
  for (; i < n / 2; i++) {
    float x = a[i], y = b[i];
    a[i] = (x + y) * root;
    b[i] = (x - y) * root;
  }
}

INLINE size_t power_of_two_within(size_t n) {
  size_t p = 1;
  while (p <= n / 2) p *= 2;
  return p;
}

// Rows that are no power of two long: the first and the last p floats in turn, then the two halves.
// s holds the signs of each round: p, and p more for the last floats if n > p; every sign is +-1 / sqrt p.
// A row is copied first, in order: it comes from memory faster so than in the strides of a transform.
static void rotate(float *out, const float *x, const float *s, size_t n, int rounds) {
  size_t p = power_of_two_within(n), rest = n - p;
  if (out != x) __builtin_memcpy(out, x, n * sizeof *out);
  if (rest == 0) {
    transform(out, p, s, rounds, 0);
    return;
  }
  for (int r = 0; r < rounds; r++, s += 2 * p) {
    transform(out, p, s, 1, 0);
    transform(out + rest, p, s + p, 1, 0);
    join_halves(out, n);
  }
}

static void rotate_back(float *out, const float *x, const float *s, size_t n, int rounds) {
  size_t p = power_of_two_within(n), rest = n - p;
  if (out != x) __builtin_memcpy(out, x, n * sizeof *out);
  if (rest == 0) {
    transform(out, p, s, rounds, 1);
    return;
  }
  s += 2 * p * (size_t)rounds;
  for (int r = 0; r < rounds; r++) {
    s -= 2 * p;
    join_halves(out, n);
    transform(out + rest, p, s + p, 1, 1);
    transform(out, p, s, 1, 1);
  }
}
