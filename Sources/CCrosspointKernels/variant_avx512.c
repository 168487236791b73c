#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,f16c"))), apply_to = function)
#define VARIANT_TABLE xp_table_avx512
#define VARIANT_NAME "avx512"
#define VARIANT_AVX512 1
#define VARIANT_FUSES 1
#include "bodies/all.h"
#pragma clang attribute pop
#endif
