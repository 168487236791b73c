import CrosspointCore

/// A short record that travels twice, each copy with a checksum.
///
/// Votes and other control traffic have nobody behind them that would notice damage for all ranks: a vote that one rank
/// alone reads wrongly makes ranks part. So damage to one of the two copies, wherever it lies, changes nothing, and a
/// record of which no copy is intact is refused.
enum SealedRecord {
  /// Bytes of a sealed record.
  static func size(of payload: Int) -> Int { 2 * (payload + checksumBytes) }

  /// - Parameter record: `size(of: payload.count)` bytes.
  static func seal(_ payload: UnsafeRawBufferPointer, into record: UnsafeMutableRawBufferPointer) {
    precondition(record.count == size(of: payload.count), "\(record.count) bytes for \(payload.count)")
    let checksum = fnv1a(payload)
    for start in [0, record.count / 2] {
      let copy = UnsafeMutableRawBufferPointer(rebasing: record[start..<start + record.count / 2])
      copy.copyMemory(from: payload)
      copy.storeBytes(of: checksum.littleEndian, toByteOffset: payload.count, as: UInt64.self)
    }
  }

  /// The payload's first intact copy; `nil` if there is none.
  static func open(_ record: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    let half = record.count / 2
    for start in [0, half] {
      let payload = UnsafeRawBufferPointer(rebasing: record[start..<start + half - checksumBytes])
      let checksum = record.loadUnaligned(fromByteOffset: start + half - checksumBytes, as: UInt64.self)
      if UInt64(littleEndian: checksum) == fnv1a(payload) { return payload }
    }
    return nil
  }

  /// The same, or what a rank throws that cannot read another's record. It alone knows: the error is not agreed on.
  static func open(
    _ record: UnsafeRawBufferPointer, from sender: Int, to receiver: Int, operation: StaticString
  ) throws(CrosspointError) -> UnsafeRawBufferPointer {
    guard let payload = open(record) else {
      throw CrosspointError(
        .corruptFrame, operation: operation.description, rank: sender, argument: "record",
        "what rank \(sender) said to rank \(receiver) came damaged, both copies: suspect memory or network")
    }
    return payload
  }

  private static let checksumBytes = 8
}
