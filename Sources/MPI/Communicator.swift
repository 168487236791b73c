internal import CMPI

/// A group of ranks with a message space of its own, freed when the last reference goes.
///
/// Every communicator made here is a duplicate or a part, never the application's: no message of others can be mistaken for
/// ours, and errors come back as ``MPIError`` instead of ending the program. Creating one is collective, and so is freeing
/// one; MPI libraries free without waiting, so that a rank that leaves early holds nobody up.
public final class Communicator {
  let raw: cmpi_comm
  /// This process in the group, in `0 ..< size`.
  public let rank: Int
  /// The number of ranks.
  public let size: Int

  /// Takes over a communicator made by the caller, errors returned.
  init(owning raw: cmpi_comm) throws(MPIError) {
    var rank: Int32 = 0
    var size: Int32 = 0
    try check("MPI_Comm_rank", cmpi_comm_rank(raw, &rank))
    try check("MPI_Comm_size", cmpi_comm_size(raw, &size))
    self.raw = raw
    self.rank = Int(rank)
    self.size = Int(size)
  }

  deinit {
    guard MPIEnvironment.isRunning else { return }
    var raw = raw
    _ = cmpi_comm_free(&raw)
  }

  /// A duplicate of MPI_COMM_WORLD: all ranks of the job. Collective. MPI must be running.
  public static func world() throws(MPIError) -> Communicator {
    try requireRunning()
    return try duplicate(of: cmpi_comm_world(), rank: nil)
  }

  /// A duplicate of a communicator that another language made, by its Fortran handle (`MPI_Comm_c2f`). Collective.
  /// - Throws: ``MPIError/Class/communicator`` for a handle that names none.
  public static func duplicate(fortranHandle handle: Int32) throws(MPIError) -> Communicator {
    try requireRunning()
    let raw = cmpi_comm_from_fortran(handle)
    guard cmpi_comm_is_null(raw) == 0 else {
      throw MPIError(.communicator, call: "MPI_Comm_f2c", "\(handle) is no communicator")
    }
    return try duplicate(of: raw, rank: nil)
  }

  /// The same ranks, with a message space of its own. Collective.
  public func duplicate() throws(MPIError) -> Communicator {
    try Self.duplicate(of: raw, rank: rank)
  }

  /// The ranks that call with the same color, ordered by key, then by rank. Collective.
  /// - Returns: `nil` for a rank that calls with color `nil`, which takes part and gets no communicator.
  public func split(color: Int?, key: Int = 0) throws(MPIError) -> Communicator? {
    var part = cmpi_comm()
    let color = try color.map { color throws(MPIError) in try int32(color, "MPI_Comm_split", rank: rank) }
    let key = try int32(key, "MPI_Comm_split", rank: rank)
    try check("MPI_Comm_split", rank: rank, cmpi_comm_split(raw, color ?? cmpi_undefined(), key, &part))
    return cmpi_comm_is_null(part) != 0 ? nil : try Communicator(owning: part)
  }

  /// The ranks that share memory with this one: those of its node. Collective.
  public func splitShared(key: Int = 0) throws(MPIError) -> Communicator {
    var node = cmpi_comm()
    let key = try int32(key, "MPI_Comm_split_type", rank: rank)
    try check("MPI_Comm_split_type", rank: rank, cmpi_comm_split_shared(raw, key, &node))
    return try Communicator(owning: node)
  }

  /// Ends every rank of the job at once, without waiting for any; mpirun reports `exitCode`.
  public func abort(exitCode: Int32) -> Never {
    _ = cmpi_abort(raw, exitCode)
    fatalError("MPI_Abort returned")
  }

  private static func requireRunning() throws(MPIError) {
    guard MPIEnvironment.isRunning else {
      throw MPIError(.other, call: "MPI_Comm_dup", "MPI is not running; call MPIEnvironment.initialize() first")
    }
  }

  private static func duplicate(of raw: cmpi_comm, rank: Int?) throws(MPIError) -> Communicator {
    var copy = cmpi_comm()
    try check("MPI_Comm_dup", rank: rank, cmpi_comm_dup(raw, &copy))
    return try Communicator(owning: copy)
  }
}
