// OpenBLAS behind two functions, so that neither its enumerations nor <complex.h> reach Swift.
#ifndef COPENBLAS_SHIM_H
#define COPENBLAS_SHIM_H

#include <cblas.h>
#include <stdbool.h>

// C [m x n] = alpha op(A) op(B) + beta C, row-major; op transposes where told to.
static inline void xp_sgemm(
    bool transpose_a, bool transpose_b, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
    int ldb, float beta, float *c, int ldc) {
  cblas_sgemm(
      CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans, m, n, k, alpha,
      a, lda, b, ldb, beta, c, ldc);
}

static inline void xp_blas_threads(int count) { openblas_set_num_threads(count); }

// OpenBLAS's own allocator of the buffers that products work in, which its library exports and no header declares. Where
// the system gives no memory the first never returns.
extern void *blas_memory_alloc(int kind);
extern void blas_memory_free(void *buffer);

static inline void *xp_blas_take_buffer(void) { return blas_memory_alloc(0); }
static inline void xp_blas_give_buffer(void *buffer) { blas_memory_free(buffer); }

#endif
