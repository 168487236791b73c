import CrosspointCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the collectives of one rank's fabric work in. It is kept from call to call: once it is large enough, none
/// allocates.
public final class CollectiveMemory {
  // The blocks of the exchange under way, one for every rank.
  var send: [UnsafeRawBufferPointer] = []
  var receive: [UnsafeMutableRawBufferPointer] = []
  private var bytes = UnsafeMutableRawBufferPointer(start: nil, count: 0)

  public init() {}

  deinit { free(bytes.baseAddress) }

  /// As many bytes, until the next call.
  /// - Throws: `outOfMemory`.
  func take(bytes count: Int, operation: StaticString) throws(CrosspointError) -> UnsafeMutableRawBufferPointer {
    if bytes.count < count {
      let larger = try takeMemory(bytes: count, operation: operation.description, argument: "values")
      free(bytes.baseAddress)
      bytes = larger
    }
    return UnsafeMutableRawBufferPointer(rebasing: bytes[..<count])
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
