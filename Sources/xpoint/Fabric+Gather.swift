import CCrosspointKernels
import Crosspoint

extension Fabric {
  /// Every rank's values, by rank; the same count on every rank. Collective.
  func allgather(_ mine: [Double]) throws(CrosspointError) -> [[Double]] {
    var all = [Double](repeating: 0, count: mine.count * rankCount)
    try mine.withUnsafeBufferPointer { mine throws(CrosspointError) in
      try all.withUnsafeMutableBufferPointer { all throws(CrosspointError) in
        try allgather(UnsafeRawBufferPointer(mine), into: UnsafeMutableRawBufferPointer(all), operation: "bench")
      }
    }
    return (0..<rankCount).map { Array(all[$0 * mine.count..<($0 + 1) * mine.count]) }
  }
}

var kernelName: String { String(cString: xp_kernels_best().pointee.name) }
