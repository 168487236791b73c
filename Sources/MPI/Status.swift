internal import CMPI

/// What MPI says about a finished receive.
public struct Status: Sendable, Hashable {
  /// The rank that sent; meaningful for receives only.
  public let source: Int
  public let tag: Int
  /// Bytes received; `nil` where MPI cannot say.
  public let byteCount: Int?
  public let isCancelled: Bool

  init(_ status: MPI_Status) {
    source = Int(status.MPI_SOURCE)
    tag = Int(status.MPI_TAG)
    isCancelled = withUnsafePointer(to: status) { cmpi_test_cancelled($0) != 0 }
    let bytes = withUnsafePointer(to: status) { cmpi_byte_count($0) }
    byteCount = bytes < 0 ? nil : Int(bytes)
  }

  /// Whole elements received; `nil` where MPI cannot say.
  public func count<Element: Datatype>(of type: Element.Type) -> Int? {
    byteCount.map { $0 / MemoryLayout<Element>.stride }
  }
}
