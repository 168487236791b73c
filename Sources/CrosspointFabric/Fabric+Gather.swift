import CrosspointCore

extension Fabric {
  /// Every rank's values, by rank; the same count on every rank. Collective.
  package func allgather(_ mine: [Double], operation: StaticString) throws(CrosspointError) -> [[Double]] {
    var all = [Double](repeating: 0, count: mine.count * rankCount)
    try mine.withUnsafeBufferPointer { mine throws(CrosspointError) in
      try all.withUnsafeMutableBufferPointer { all throws(CrosspointError) in
        try allgather(UnsafeRawBufferPointer(mine), into: UnsafeMutableRawBufferPointer(all), operation: operation)
      }
    }
    return (0..<rankCount).map { Array(all[$0 * mine.count..<($0 + 1) * mine.count]) }
  }
}
