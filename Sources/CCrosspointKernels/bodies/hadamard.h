// The pseudo-rotation: random signs and an orthonormal Hadamard transform, a few rounds of it.
//
// A transform of p = 128 * 2^k floats has two halves that commute: "columns" mix up to 3 upper bits of the index, "chunks"
// mix the others among neighbours. Chunks of 128 are "blocks", mixed in registers; larger ones have columns and chunks of
// their own. The last half of one round and the first half of the next are the same one, so that one sweep over memory
// does both, with the signs between: R rounds take R + 1 sweeps over memory; what chunks larger than a block do beyond that
// stays in the cache.
//
// The matrix is Sylvester's. Bits of the index that number vectors are mixed by adding and subtracting whole vectors, bits
// that number lanes by adding a vector, signed, to itself with its lanes exchanged. The two kinds take turns, so that
// additions, fused ones and shuffles keep more units of the processor busy at once.

#define BLOCK 128
#define BLOCK_VECTORS (BLOCK / LANES)

// Mixes one bit of the vector's number.
INLINE void mix_vectors(vf *v, int count, int step) {
  for (int i = 0; i < count; i++)
    if (!(i & step)) {
      vf difference = v[i] - v[i | step];
      v[i] = v[i] + v[i | step];
      v[i | step] = difference;
    }
}

// Mixes one bit of the lane's number.
#define PARTNER(lane, step) (lane) ^ (step)
#define SIGN(lane, step) (lane) & (step) ? -1 : 1
#define EACH_LANE(f, step)                                                                                           \
  f(0, step), f(1, step), f(2, step), f(3, step), f(4, step), f(5, step), f(6, step), f(7, step), f(8, step), f(9, step), \
      f(10, step), f(11, step), f(12, step), f(13, step), f(14, step), f(15, step)
#define MIX_LANES(v, count, step)       \
  for (int i = 0; i < (count); i++)     \
    v[i] = add_signed(__builtin_shufflevector(v[i], v[i], EACH_LANE(PARTNER, step)), v[i], (vf){EACH_LANE(SIGN, step)});

INLINE void block(vf *v) {
  MIX_LANES(v, BLOCK_VECTORS, 1)
  mix_vectors(v, BLOCK_VECTORS, 1);
  MIX_LANES(v, BLOCK_VECTORS, 2)
  mix_vectors(v, BLOCK_VECTORS, 2);
  MIX_LANES(v, BLOCK_VECTORS, 4)
  mix_vectors(v, BLOCK_VECTORS, 4);
  MIX_LANES(v, BLOCK_VECTORS, 8)
}

// What one sweep does beside transforming. Signs before, between and after the transforms; NULL where there are none:
// without `between` the sweep transforms once, with it twice. Blocks bring the floats at `ahead` into the cache
// meanwhile.
typedef struct sweep {
  const float *before, *between, *after, *ahead;
} sweep;

INLINE void multiply(vf *v, int count, const float *s, size_t stride) {
  if (s)
    for (int i = 0; i < count; i++) v[i] *= load(s + i * stride);
}

INLINE void put(float *out, const vf *v, int count, size_t stride) {
  for (int i = 0; i < count; i++) store(out + i * stride, v[i]);
}

INLINE void column(vf *v, int count) {
  for (int step = 1; step < count; step *= 2) mix_vectors(v, count, step);
}

INLINE void columns_of(int count, float *x, size_t stride, sweep s) {
  for (size_t c = 0; c < stride; c += LANES) {
    vf v[8];
    for (int i = 0; i < count; i++) v[i] = load(x + i * stride + c);
    multiply(v, count, s.before ? s.before + c : NULL, stride);
    column(v, count);
    if (s.between) {
      multiply(v, count, s.between + c, stride);
      column(v, count);
    }
    multiply(v, count, s.after ? s.after + c : NULL, stride);
    put(x + c, v, count, stride);
  }
}

static void columns(float *x, size_t count, size_t stride, sweep s) {
  switch (count) {
    case 1: columns_of(1, x, stride, s); break;
    case 2: columns_of(2, x, stride, s); break;
    case 4: columns_of(4, x, stride, s); break;
    default: columns_of(8, x, stride, s); break;
  }
}

static void blocks(float *x, size_t p, sweep s) {
  for (size_t c = 0; c < p; c += BLOCK) {
    vf v[BLOCK_VECTORS];
    for (int i = 0; i < BLOCK_VECTORS; i++) v[i] = load(x + c + i * LANES);
    if (s.ahead)
      for (int i = 0; i < BLOCK; i += LANES) __builtin_prefetch(s.ahead + c + i);
    multiply(v, BLOCK_VECTORS, s.before ? s.before + c : NULL, LANES);
    block(v);
    if (s.between) {
      multiply(v, BLOCK_VECTORS, s.between + c, LANES);
      block(v);
    }
    multiply(v, BLOCK_VECTORS, s.after ? s.after + c : NULL, LANES);
    put(x + c, v, BLOCK_VECTORS, LANES);
  }
}

// How many columns p floats have.
INLINE size_t columns_within(size_t p) { return p / BLOCK < 8 ? p / BLOCK : 8; }

// The part of a sweep that begins c floats on.
INLINE sweep part_of(sweep s, size_t c) {
  return (sweep){s.before ? s.before + c : NULL, s.between ? s.between + c : NULL, s.after ? s.after + c : NULL,
                 s.ahead ? s.ahead + c : NULL};
}

// Transforms each `size` of the p floats by itself: once or, with signs between, twice.
static void chunks(float *x, size_t p, size_t size, sweep s) {
  if (size == BLOCK) {
    blocks(x, p, s);
    return;
  }
  size_t count = columns_within(size), stride = size / count;
  for (size_t c = 0; c < p; c += size) {
    sweep t = part_of(s, c);
    columns(x + c, count, stride, (sweep){.before = t.before});
    chunks(x + c, size, stride,
           (sweep){.between = t.between, .after = t.between ? NULL : t.after, .ahead = t.ahead});
    if (t.between) columns(x + c, count, stride, (sweep){.after = t.after});
  }
}

// One round on fewer floats than a block, in so many vectors.
INLINE void vectors_round(int count, float *x, const float *before, const float *after) {
  vf v[BLOCK_VECTORS / 2];
  for (int i = 0; i < count; i++) v[i] = load(x + i * LANES);
  multiply(v, count, before, LANES);
  MIX_LANES(v, count, 1)
  MIX_LANES(v, count, 2)
  MIX_LANES(v, count, 4)
  MIX_LANES(v, count, 8)
  column(v, count);
  multiply(v, count, after, LANES);
  put(x, v, count, LANES);
}

// One round for p < 128.
static void small_round(float *x, size_t p, const float *before, const float *after) {
  switch (p) {
    case 64: vectors_round(4, x, before, after); return;
    case 32: vectors_round(2, x, before, after); return;
    case 16: vectors_round(1, x, before, after); return;
  }
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
// s holds p signs for each round; ahead is NULL or p floats that are wanted next (not heeded for p < 128).
static void transform(float *x, size_t p, const float *s, int rounds, int back, const float *ahead) {
  if (p < BLOCK) {
    for (int r = 0; r < rounds; r++) {
      const float *mine = s + (back ? rounds - 1 - r : r) * p;
      small_round(x, p, back ? NULL : mine, back ? mine : NULL);
    }
    return;
  }
  size_t count = columns_within(p), stride = p / count;
  for (int n = 0; n <= rounds; n++) {
    sweep t = {};
    if (n == 0) t.before = back ? NULL : s;
    else if (n == rounds) t.after = back ? s : NULL;
    if (n > 0 && n < rounds) t.between = s + (back ? rounds - n : n) * p;
    // Alternating; forward ends with chunks, and back begins with them.
    if (((back ? n : rounds - n) & 1) == 0) {
      t.ahead = n < 2 ? ahead : NULL;
      chunks(x, p, stride, t);
    } else {
      columns(x, count, stride, t);
    }
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
  return (size_t)1 << (63 - __builtin_clzll(n));
}

// Rows that are no power of two long: the first and the last p floats in turn, then the two halves.
// s holds the signs of each round: p, and p more for the last floats if n > p; every sign is +-1 / sqrt p.
// A row is copied first, in order: it comes from memory faster so than in the strides of a transform.
static void rotate(float *out, const float *x, const float *s, size_t n, int rounds, const float *ahead) {
  size_t p = power_of_two_within(n), rest = n - p;
  if (out != x) __builtin_memcpy(out, x, n * sizeof *out);
  if (rest == 0) {
    transform(out, p, s, rounds, 0, ahead);
    return;
  }
  for (int r = 0; r < rounds; r++, s += 2 * p) {
    const float *next = r == 0 ? ahead : NULL;
    transform(out, p, s, 1, 0, next);
    transform(out + rest, p, s + p, 1, 0, next ? next + rest : NULL);
    join_halves(out, n);
  }
}

static void rotate_back(float *out, const float *x, const float *s, size_t n, int rounds) {
  size_t p = power_of_two_within(n), rest = n - p;
  if (out != x) __builtin_memcpy(out, x, n * sizeof *out);
  if (rest == 0) {
    transform(out, p, s, rounds, 1, NULL);
    return;
  }
  s += 2 * p * (size_t)rounds;
  for (int r = 0; r < rounds; r++) {
    s -= 2 * p;
    join_halves(out, n);
    transform(out + rest, p, s + p, 1, 1, NULL);
    transform(out, p, s, 1, 1, NULL);
  }
}
