internal import CMPI

/// Memory of which each rank of a node owns a part and all can read and write every part.
///
/// Stores become visible to others after ``fence()``, or after ``sync()`` on both sides with a barrier between them, inside
/// ``lockAll()`` … ``unlockAll()``. Collective to create and to free; one that is not freed stays until MPI ends.
public final class SharedWindow<Element: Datatype> {
  private var raw = cmpi_win_null()
  private let communicator: Communicator
  /// This rank's part.
  public let mine: UnsafeMutableBufferPointer<Element>

  /// Allocates `count` elements for this rank; other ranks may ask for other counts. Collective. (MPI_Win_allocate_shared)
  /// - Parameters:
  ///   - communicator: ranks that share memory, as from ``Communicator/splitShared(key:)``.
  ///   - count: elements of this rank's part.
  public init(on communicator: Communicator, count: Int) throws(MPIError) {
    self.communicator = communicator
    let stride = MemoryLayout<Element>.stride
    let (bytes, overflow) = count.multipliedReportingOverflow(by: stride)
    guard count >= 0, !overflow else {
      throw MPIError(
        .argument, call: "MPI_Win_allocate_shared", rank: communicator.rank, "\(count) elements of \(stride) bytes")
    }
    var base: UnsafeMutableRawPointer?
    let unit = try int32(stride, "MPI_Win_allocate_shared", rank: communicator.rank)
    try check(
      "MPI_Win_allocate_shared", rank: communicator.rank,
      cmpi_win_allocate_shared(bytes, unit, communicator.raw, &base, &raw))
    mine = Self.elements(base, count: count)
  }

  /// The part of another rank, or of this one. (MPI_Win_shared_query)
  public func part(of rank: Int) throws(MPIError) -> UnsafeMutableBufferPointer<Element> {
    var base: UnsafeMutableRawPointer?
    var bytes = 0
    let rank = try int32(rank, "MPI_Win_shared_query", rank: communicator.rank)
    try check("MPI_Win_shared_query", rank: communicator.rank, cmpi_win_shared_query(raw, rank, &bytes, &base))
    return Self.elements(base, count: bytes / MemoryLayout<Element>.stride)
  }

  /// A barrier after which everybody sees every store made before it. Collective. (MPI_Win_fence)
  public func fence() throws(MPIError) { try check("MPI_Win_fence", rank: communicator.rank, cmpi_win_fence(raw)) }

  /// Orders this rank's loads and stores before and after. (MPI_Win_sync)
  public func sync() throws(MPIError) { try check("MPI_Win_sync", rank: communicator.rank, cmpi_win_sync(raw)) }

  /// Opens the epoch in which ``sync()`` may be used. (MPI_Win_lock_all)
  public func lockAll() throws(MPIError) {
    try check("MPI_Win_lock_all", rank: communicator.rank, cmpi_win_lock_all(raw))
  }

  /// Closes the epoch. (MPI_Win_unlock_all)
  public func unlockAll() throws(MPIError) {
    try check("MPI_Win_unlock_all", rank: communicator.rank, cmpi_win_unlock_all(raw))
  }

  /// Gives the memory back; no part may be touched afterwards. Collective. A second call does nothing. (MPI_Win_free)
  public func free() throws(MPIError) {
    guard cmpi_win_is_null(raw) == 0 else { return }
    try check("MPI_Win_free", rank: communicator.rank, cmpi_win_free(&raw))
  }

  private static func elements(_ base: UnsafeMutableRawPointer?, count: Int) -> UnsafeMutableBufferPointer<Element> {
    guard let base, count > 0 else { return .init(start: nil, count: 0) }
    return .init(start: base.bindMemory(to: Element.self, capacity: count), count: count)
  }
}
