import CCrosspointKernels

/// The table of SIMD kernels for this processor, chosen once (see `CCrosspointKernels.h`).
package nonisolated(unsafe) let kernels: xp_kernels = xp_kernels_best().pointee  // constant after start
