import CrosspointCore
import Glibc

/// What the collectives of one rank's fabric work in. It is kept from call to call: once it is large enough, none
/// allocates.
public final class CollectiveMemory {
  // The blocks of the exchange under way, one for every rank.
  @exclusivity(unchecked) var send: [UnsafeRawBufferPointer] = []
  @exclusivity(unchecked) var receive: [UnsafeMutableRawBufferPointer] = []
  // The same, each followed by its checksum.
  @exclusivity(unchecked) private(set) var pairedSend: [UnsafeRawBufferPointer] = []
  @exclusivity(unchecked) private(set) var pairedReceive: [UnsafeMutableRawBufferPointer] = []
  @exclusivity(unchecked) private var bytes = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  @exclusivity(unchecked) private var checksums = UnsafeMutableRawBufferPointer(start: nil, count: 0)

  /// Whether something has ended without a vote, and what went wrong in it on this rank: the next vote tells.
  @exclusivity(unchecked) package private(set) var isUnsettled = false
  @exclusivity(unchecked) package private(set) var unsettled: CrosspointError?

  public init() {}

  /// Leaves it to the next vote, or announcement, to tell what went wrong. Collective.
  package func deferVote(_ failure: CrosspointError?) { (isUnsettled, unsettled) = (true, unsettled ?? failure) }

  /// What went wrong, which all ranks are about to hear. Collective.
  package func takeUnsettled() -> CrosspointError? {
    defer { (isUnsettled, unsettled) = (false, nil) }
    return unsettled
  }

  deinit {
    free(bytes.baseAddress)
    free(checksums.baseAddress)
  }

  /// As many bytes, until the next call.
  /// - Throws: `outOfMemory`.
  func take(bytes count: Int, operation: StaticString) throws(CrosspointError) -> UnsafeMutableRawBufferPointer {
    try Self.grow(&bytes, to: count, operation: operation)
    return UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
  }

  private static func grow(
    _ bytes: inout UnsafeMutableRawBufferPointer, to count: Int, operation: StaticString
  ) throws(CrosspointError) {
    guard bytes.count < count else { return }
    let larger = try takeMemory(bytes: count, operation: operation.description, argument: "values")
    free(bytes.baseAddress)
    bytes = larger
  }

  /// A checksum for each block that is sent, and for each that is received.
  func takeChecksums(
    ranks: Int, operation: StaticString
  ) throws(CrosspointError) -> (sent: UnsafeMutableBufferPointer<UInt64>, received: UnsafeMutableBufferPointer<UInt64>)
  {
    try Self.grow(&checksums, to: 2 * ranks * MemoryLayout<UInt64>.size, operation: operation)
    let all = checksums.bindMemory(to: UInt64.self)
    return (
      UnsafeMutableBufferPointer(rebasing: all[..<ranks]), UnsafeMutableBufferPointer(rebasing: all[ranks..<2 * ranks])
    )
  }

  /// Lays each block's checksum behind it.
  func pairBlocks(with sent: UnsafeMutableBufferPointer<UInt64>, _ received: UnsafeMutableBufferPointer<UInt64>) {
    func place(_ checksums: UnsafeMutableBufferPointer<UInt64>, _ index: Int) -> UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: checksums[index...index]))
    }
    pairedSend.removeAll(keepingCapacity: true)
    pairedReceive.removeAll(keepingCapacity: true)
    for peer in send.indices {
      pairedSend.append(send[peer])
      pairedSend.append(UnsafeRawBufferPointer(place(sent, peer)))
      pairedReceive.append(receive[peer])
      pairedReceive.append(place(received, peer))
    }
  }

  /// Makes as many equal parts of some bytes the blocks to receive.
  func receive(into all: UnsafeMutableRawBufferPointer, parts: Int) {
    let size = all.count / parts
    receive.removeAll(keepingCapacity: true)
    for part in 0..<parts {
      receive.append(UnsafeMutableRawBufferPointer(rebasing: all[part * size..<(part + 1) * size]))
    }
  }
}
