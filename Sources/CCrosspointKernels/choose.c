// Looks at the processor once.
#include <stdlib.h>
#include <string.h>

#include "CCrosspointKernels.h"

extern const xp_kernels xp_table_scalar;
#if defined(__x86_64__)
extern const xp_kernels xp_table_avx2, xp_table_avx512;
#elif defined(__aarch64__)
extern const xp_kernels xp_table_neon;
#endif

const xp_kernels *xp_kernels_variant(xp_variant variant) {
  switch (variant) {
    case XP_SCALAR:
      return &xp_table_scalar;
#if defined(__x86_64__)
    case XP_AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
                     __builtin_cpu_supports("f16c")
                 ? &xp_table_avx2
                 : NULL;
    case XP_AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c")
                 ? &xp_table_avx512
                 : NULL;
#elif defined(__aarch64__)
    case XP_NEON:
      return &xp_table_neon;
#endif
    default:
      return NULL;
  }
}

const xp_kernels *xp_kernels_best(void) {
  static _Atomic(const xp_kernels *) chosen = NULL;
  const xp_kernels *table = chosen;
  if (table) return table;
  const char *forced = getenv("CROSSPOINT_KERNELS");
  for (int variant = XP_NEON; variant >= XP_SCALAR; variant--) {
    const xp_kernels *candidate = xp_kernels_variant((xp_variant)variant);
    if (!candidate) continue;
    if (!table) table = candidate;
    if (forced && strcmp(forced, candidate->name) == 0) table = candidate;
  }
  chosen = table;
  return table;
}
