import COpenBLAS
import CrosspointCore
import Foundation
import Synchronization

/// The memory that OpenBLAS takes for itself, taken before the first product.
///
/// OpenBLAS maps a buffer for every product that runs at the same time as others, and keeps it. Where the system gives none,
/// it tries again for ever, and no signal but a deadly one ends it. So every model of this process, which are as many as its
/// ranks, has one mapped while that can still be refused.
final class ProductMemory {
  /// The largest buffer of OpenBLAS on any processor.
  private static let bufferBytes = 128 << 20
  /// OpenBLAS has space for 64 at least; that many products never run at the same time on the cores of one process.
  private static let mostBuffers = 64
  private static let counts = Mutex((models: 0, buffers: 0))

  /// - Throws: `outOfMemory` where a limit on the address space (`ulimit -v`) leaves no memory.
  init() throws(CrosspointError) {
    let hasRoom = Self.counts.withLock { counts in
      counts.models += 1
      let wanted = min(counts.models, Self.mostBuffers)
      guard wanted > counts.buffers else { return true }
      guard Self.hasRoom else {
        counts.models -= 1
        return false
      }
      let buffers = (0..<wanted).map { _ in xp_blas_take_buffer() }
      for buffer in buffers { xp_blas_give_buffer(buffer) }
      counts.buffers = wanted
      return true
    }
    guard hasRoom else {
      throw CrosspointError(
        .outOfMemory, operation: "model", argument: "memory",
        "no memory for \(Self.bufferBytes) bytes of OpenBLAS: raise the limit on the address space (ulimit -v)")
    }
  }

  deinit { Self.counts.withLock { $0.models -= 1 } }

  /// Whether one more buffer can be mapped.
  private static var hasRoom: Bool {
    let memory = mmap(nil, bufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard memory != MAP_FAILED else { return false }
    munmap(memory, bufferBytes)
    return true
  }
}
