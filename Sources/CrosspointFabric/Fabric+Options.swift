import CrosspointCore

/// The ranks compare what must be the same on all of them.
extension Fabric {
  /// Returns when every rank passes the same options: names and values, in the same order. Collective.
  ///
  /// Ranks exchange a checksum each; only where they differ do the texts themselves travel, of any length.
  /// - Throws: `ranksDisagree`, the same on every rank, with the first option that differs, the first rank on which it does,
  ///   and both values.
  public func requireEqual(
    _ options: [(key: String, value: String)], operation: StaticString
  ) throws(CrosspointError) {
    // No name and no value of a command line holds a zero byte.
    let mine = options.flatMap { Array("\($0.key)\0\($0.value)\0".utf8) }
    let summaries = try gather([UInt64(mine.count), fnv1a(mine)], operation: operation)
    guard let odd = summaries.firstIndex(where: { $0 != summaries[0] }) else { return }
    let longest = summaries.reduce(0) { max($0, Int($1[0])) }
    let texts = zip(
      try gather(mine + Array(repeating: 0, count: longest - mine.count), operation: operation), summaries
    ).map { $0.prefix(Int($1[0])) }
    // Every rank finds the same, unless a long text came damaged.
    try together(operation: operation) { () throws(CrosspointError) in
      for (rank, summary) in summaries.enumerated() where fnv1a(texts[rank]) != summary[1] {
        throw CrosspointError(
          .corruptFrame, operation: operation.description, rank: rank, argument: "options",
          "what rank \(rank) says of its options came damaged: suspect memory or network")
      }
      throw difference(of: texts[odd], on: odd, from: texts[0], operation: operation)
    }
  }

  private func difference(
    of theirs: ArraySlice<UInt8>, on rank: Int, from expected: ArraySlice<UInt8>, operation: StaticString
  ) -> CrosspointError {
    let (theirs, expected) = (pairs(theirs), pairs(expected))
    let keys = expected.map(\.key) + theirs.map(\.key)
    func value(_ key: String, _ pairs: [(key: String, value: String)]) -> String {
      pairs.first { $0.key == key }?.value ?? "nothing"
    }
    let key = keys.first { value($0, theirs) != value($0, expected) } ?? "order"
    return CrosspointError(
      .ranksDisagree, operation: operation.description, rank: rank, argument: key,
      "\(value(key, theirs)) on rank \(rank), \(value(key, expected)) on rank 0: every rank needs the same")
  }

  private func pairs(_ text: ArraySlice<UInt8>) -> [(key: String, value: String)] {
    let words = text.split(separator: 0, omittingEmptySubsequences: false).map { String(decoding: $0, as: UTF8.self) }
    return stride(from: 0, to: words.count - 1, by: 2).map { (words[$0], words[$0 + 1]) }
  }

  /// Every rank's numbers, as many from each, by rank. Collective.
  package func gather<Number: BitwiseCopyable & ExpressibleByIntegerLiteral>(
    _ mine: [Number], operation: StaticString
  ) throws(CrosspointError) -> [[Number]] {
    var all = [Number](repeating: 0, count: rankCount * mine.count)
    try mine.withUnsafeBufferPointer { mine throws(CrosspointError) in
      try all.withUnsafeMutableBufferPointer { all throws(CrosspointError) in
        try allgather(UnsafeRawBufferPointer(mine), into: UnsafeMutableRawBufferPointer(all), operation: operation)
      }
    }
    return (0..<rankCount).map { Array(all[$0 * mine.count..<($0 + 1) * mine.count]) }
  }
}
