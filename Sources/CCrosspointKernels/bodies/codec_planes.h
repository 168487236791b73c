// Byte planes: byte k of every element, one element after another. Compressors see like with like.

static void plane_split(void *out, const void *in, size_t n, size_t width, size_t plane) {
  uint8_t *restrict to = out;
  const uint8_t *restrict from = (const uint8_t *)in + plane;
  if (width == 2) for (size_t i = 0; i < n; i++) to[i] = from[2 * i];
  else if (width == 4) for (size_t i = 0; i < n; i++) to[i] = from[4 * i];
  else for (size_t i = 0; i < n; i++) to[i] = from[width * i];
}

static void plane_merge(void *out, const void *in, size_t n, size_t width, size_t plane) {
  uint8_t *restrict to = (uint8_t *)out + plane;
  const uint8_t *restrict from = in;
  if (width == 2) for (size_t i = 0; i < n; i++) to[2 * i] = from[i];
  else if (width == 4) for (size_t i = 0; i < n; i++) to[4 * i] = from[i];
  else for (size_t i = 0; i < n; i++) to[width * i] = from[i];
}
