#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,f16c"))), apply_to = function)
#define VARIANT_TABLE xp_table_avx2
#define VARIANT_NAME "avx2"
#define VARIANT_AVX2 1
#define VARIANT_FUSES 1
#include "bodies/all.h"
#pragma clang attribute pop
#endif
