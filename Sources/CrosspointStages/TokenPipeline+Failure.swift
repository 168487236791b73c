import CrosspointCore
import CrosspointRouting

/// One rank's failure becomes everybody's, over a closure that only sums.
extension TokenPipeline {
  func failTogether(_ failure: CrosspointError?, reduceCounts: CountReduction) throws(CrosspointError) {
    failed.removeAll(keepingCapacity: true)
    failed.append(failure == nil ? 0 : 1)
    try reduceCounts(&failed)
    guard failed.count == 1, failed[0].isFinite, failed[0] >= (failure == nil ? 0 : 1) else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenPipeline", argument: "reduceCounts", "it did not return a sum of counts")
    }
    guard failed[0] > 0 else { return }
    var text = [Double](repeating: 0, count: CrosspointError.encodedSize)
    if failed[0] == 1 {
      if let failure { text = failure.bytes }
      try reduceCounts(&text)
    }
    if let failure { throw failure }
    throw CrosspointError(bytes: text)
      ?? CrosspointError(
        .refusedElsewhere, operation: "TokenPipeline", argument: "tokens",
        "\(Int(failed[0])) other ranks refused theirs; see their errors")
  }
}

extension CrosspointError {
  /// The encoded failure, a number per byte.
  fileprivate var bytes: [Double] {
    withUnsafeTemporaryAllocation(byteCount: Self.encodedSize, alignment: 8) { buffer in
      buffer.initializeMemory(as: UInt8.self, repeating: 0)
      encode(into: buffer)
      return buffer.map(Double.init)
    }
  }

  fileprivate init?(bytes: [Double]) {
    let whole = bytes.map { UInt8(exactly: $0) ?? 0 }
    guard let error = whole.withUnsafeBytes({ CrosspointError(decoding: $0) }) else { return nil }
    self = error
  }
}
