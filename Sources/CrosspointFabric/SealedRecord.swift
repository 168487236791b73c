import CrosspointCore

/// A short record that travels twice, each copy with a checksum.
///
/// Votes, announcements and other control traffic have nobody behind them that would notice damage for all ranks: a vote
/// that one rank alone reads wrongly makes ranks part. So damage to one of the two copies, wherever it lies, changes nothing, and a
/// record of which no copy is intact is refused. Nothing here allocates.
package enum SealedRecord {
  /// Bytes of a sealed record.
  package static func size(of payload: Int) -> Int { 2 * (payload + checksumBytes) }

  /// - Parameter record: `size(of: payload.count)` bytes.
  static func seal(_ payload: UnsafeRawBufferPointer, into record: UnsafeMutableRawBufferPointer) {
    precondition(record.count == size(of: payload.count), "\(record.count) bytes for \(payload.count)")
    record.copyMemory(from: payload)
    seal(record)
  }

  /// The same for a payload that lies at the beginning of its record.
  package static func seal(_ record: UnsafeMutableRawBufferPointer) {
    let first = UnsafeRawBufferPointer(rebasing: record[..<(record.count / 2)])
    let payload = UnsafeRawBufferPointer(rebasing: first[..<(first.count - checksumBytes)])
    record.storeBytes(of: checksum(payload).littleEndian, toByteOffset: payload.count, as: UInt64.self)
    UnsafeMutableRawBufferPointer(rebasing: record[first.count...]).copyMemory(from: first)
  }

  /// The payload's first intact copy; `nil` if there is none.
  static func open(_ record: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    let half = record.count / 2
    return intact(UnsafeRawBufferPointer(rebasing: record[..<half]))
      ?? intact(UnsafeRawBufferPointer(rebasing: record[half...]))
  }

  /// The same, or what a rank throws that cannot read another's record. It alone knows: the error is not agreed on.
  package static func open(
    _ record: UnsafeRawBufferPointer, from sender: Int, to receiver: Int, operation: StaticString
  ) throws(CrosspointError) -> UnsafeRawBufferPointer {
    guard let payload = open(record) else {
      throw CrosspointError(
        .corruptFrame, operation: operation.description, rank: sender, argument: "record",
        "what rank \(sender) said to rank \(receiver) came damaged, both copies: suspect memory or network")
    }
    return payload
  }

  private static func intact(_ copy: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    let payload = UnsafeRawBufferPointer(rebasing: copy[..<(copy.count - checksumBytes)])
    let sum = copy.loadUnaligned(fromByteOffset: payload.count, as: UInt64.self)
    return UInt64(littleEndian: sum) == checksum(payload) ? payload : nil
  }

  private static let checksumBytes = 8
}
