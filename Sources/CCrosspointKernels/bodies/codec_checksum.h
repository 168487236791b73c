// The checksum of frames: 64 lanes of 32 bits that absorb 256 bytes a step.
//
// Every step and the final fold are bijective in each lane, so a change inside any one lane of any one step (a flipped
// bit, a changed aligned word) changes the result for certain.

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are little-endian and their kernels expect a little-endian processor"
#endif

typedef uint32_t vu_any __attribute__((vector_size(64), aligned(1), may_alias));

INLINE vu checksum_step(vu state, vu data) {
  vu mixed = state ^ data;
  mixed ^= mixed >> 15;
  mixed = (mixed << 13) | (mixed >> 19);
  return mixed + (mixed << 2) + 0xE6546B64u;
}

static void checksum_absorb(uint32_t *lanes, const void *bytes, size_t n) {
  const uint8_t *p = bytes;
  vu_any *state = (vu_any *)lanes;
  vu a = state[0], b = state[1], c = state[2], d = state[3];
  for (size_t i = 0; i + 256 <= n; i += 256) {
    a = checksum_step(a, *(const vu_any *)(p + i));
    b = checksum_step(b, *(const vu_any *)(p + i + 64));
    c = checksum_step(c, *(const vu_any *)(p + i + 128));
    d = checksum_step(d, *(const vu_any *)(p + i + 192));
  }
  state[0] = a, state[1] = b, state[2] = c, state[3] = d;
}

INLINE uint64_t checksum_mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static uint64_t checksum_finish(const uint32_t *lanes, const void *tail, size_t n, uint64_t total) {
  uint32_t state[64];
  uint8_t rest[256] = {0};
  __builtin_memcpy(state, lanes, sizeof state);
  if (n) {
    __builtin_memcpy(rest, tail, n);
    checksum_absorb(state, rest, sizeof rest);
  }
  const vu_any *v = (const vu_any *)state;
  vu folded = {};
  for (int i = 0; i < 4; i++) folded = checksum_step(folded, v[i]);
  uint64_t words[8], hash = checksum_mix(total + 0x9E3779B97F4A7C15u);
  __builtin_memcpy(words, &folded, sizeof words);
  for (int i = 0; i < 8; i++) hash = checksum_mix(hash ^ words[i]);
  return hash;
}
