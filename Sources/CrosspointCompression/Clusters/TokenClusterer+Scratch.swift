import CrosspointCore
import CrosspointTokens

/// Memory that is kept between calls and grows on demand; its content does not survive growing.
final class Scratch<Element: BitwiseCopyable> {
  private let pool: BufferPool
  private var buffer: BufferPool.Buffer?

  init(_ pool: BufferPool) { self.pool = pool }

  deinit {
    if let buffer { pool.release(buffer) }
  }

  /// Address of the memory last reserved.
  var base: UnsafeMutablePointer<Element> {
    guard let buffer else { preconditionFailure("nothing reserved yet") }
    return buffer.base.assumingMemoryBound(to: Element.self)
  }

  /// Space for `count` elements.
  @discardableResult
  func reserve(_ count: Int) throws(CrosspointError) -> UnsafeMutablePointer<Element> {
    let (bytes, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
    guard !overflow else {
      throw CrosspointError(.outOfMemory, operation: "reserve", argument: "count", "\(count) elements")
    }
    if let buffer, buffer.capacity < bytes {
      pool.release(buffer)
      self.buffer = nil
    }
    if buffer == nil { buffer = try pool.lease(bytes: bytes) }
    return base
  }
}
