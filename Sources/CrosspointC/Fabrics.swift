// swift-format-ignore-file: AlwaysUseLowerCamelCase
// Names are those of crosspoint.h.

public import CCrosspoint
import CrosspointCore
import CrosspointFabric
import CrosspointMPI
import Glibc
import MPI

/// One rank as C holds it.
final class RankOfC {
  let fabric: any Fabric
  /// The blocks of an exchange of bytes, kept so that none allocates.
  var send: [UnsafeRawBufferPointer] = []
  var receive: [UnsafeMutableRawBufferPointer] = []
  let turn = Turn()
  /// The cluster of a simulated rank that has not left it.
  private var cluster: SimulatedRanks?

  init(_ fabric: any Fabric, of cluster: SimulatedRanks? = nil) {
    self.fabric = fabric
    self.cluster = cluster
  }

  deinit { leave(nil) }

  func leave(_ failure: (any Error)?) {
    cluster?.finish(fabric.rank, failure: failure)
    cluster = nil
  }
}

/// What a program of C or Python says when a rank of it fails.
private struct ProgramFailure: Error, CustomStringConvertible { let description: String }

/// `nil` for options that are not given: the defaults.
private func options(
  _ pointer: UnsafePointer<crosspoint_fabric_options>?, _ operation: String
) throws(CrosspointError) -> (deadline: Duration, sharesMemory: Bool) {
  guard pointer != nil else { return (.seconds(60), true) }
  let options = try read(pointer, operation, "options")
  return (
    options.deadline == 0 ? .seconds(60) : try deadline(options.deadline, operation), options.messages_only == 0
  )
}

private func deadline(_ seconds: Double, _ operation: String) throws(CrosspointError) -> Duration {
  // A century; NaN is in no range.
  guard seconds > 0, seconds <= 3.2e9 else { throw invalid(operation, "deadline", "\(seconds) seconds") }
  return .seconds(seconds)
}

@c @implementation
public func crosspoint_fabric_world(
  _ options: UnsafePointer<crosspoint_fabric_options>?, _ fabric: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let fabric = try place(fabric, "crosspoint_fabric_world", "fabric")
    let (deadline, sharesMemory) = try CrosspointC.options(options, "crosspoint_fabric_world")
    fabric.pointee = handOut(RankOfC(try MPIFabric.world(deadline: deadline, sharesMemory: sharesMemory)))
  }
}

@c @implementation
public func crosspoint_fabric_from_communicator(
  _ fortranHandle: Int64, _ options: UnsafePointer<crosspoint_fabric_options>?,
  _ fabric: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_fabric_from_communicator"
    let fabric = try place(fabric, operation, "fabric")
    let (deadline, sharesMemory) = try CrosspointC.options(options, operation)
    guard let handle = Int32(exactly: fortranHandle) else {
      throw invalid(operation, "fortran_handle", "\(fortranHandle) is no MPI_Fint of 32 bits")
    }
    fabric.pointee = handOut(
      RankOfC(try MPIFabric(fortranHandle: handle, deadline: deadline, sharesMemory: sharesMemory)))
  }
}

nonisolated(unsafe) private let mpiLibrary = UnsafePointer(textOfC(MPIEnvironment.libraryVersion))

@c @implementation
public func crosspoint_mpi_library() -> UnsafePointer<CChar>? { mpiLibrary }

@c @implementation
public func crosspoint_cluster_create(
  _ ranks: Int32, _ ranksPerNode: Int32, _ options: UnsafePointer<crosspoint_fabric_options>?,
  _ cluster: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_cluster_create"
    let cluster = try place(cluster, operation, "cluster")
    try Extent.require(Int(ranks), in: 1...1 << 16, operation: operation, argument: "ranks")
    try Extent.require(Int(ranksPerNode), in: 1...1 << 16, operation: operation, argument: "ranks_per_node")
    let (deadline, sharesMemory) = try CrosspointC.options(options, operation)
    cluster.pointee = handOut(
      SimulatedRanks(
        SimulatedCluster(
          ranks: Int(ranks), ranksPerNode: sharesMemory ? Int(ranksPerNode) : 1, deadline: deadline)))
  }
}

@c @implementation
public func crosspoint_cluster_fabric(
  _ cluster: OpaquePointer?, _ rank: Int32, _ fabric: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_cluster_fabric"
    let ranks: SimulatedRanks = try object(cluster, operation, "cluster")
    let fabric = try place(fabric, operation, "fabric")
    try Extent.require(Int(rank), in: 0...ranks.cluster.ranks - 1, operation: operation, argument: "rank")
    fabric.pointee = handOut(RankOfC(ranks.fabric(Int(rank)), of: ranks))
  }
}

@c @implementation
public func crosspoint_cluster_cancel(_ cluster: OpaquePointer?) {
  guard let ranks: SimulatedRanks = try? object(cluster, "crosspoint_cluster_cancel", "cluster") else { return }
  ranks.cancel(
    CrosspointError(
      .interrupted, operation: "crosspoint_cluster_cancel", argument: "cluster", "the program asked to stop")
  )
}

@c @implementation
public func crosspoint_cluster_free(_ cluster: OpaquePointer?) { takeBack(cluster, as: SimulatedRanks.self) }

@c @implementation
public func crosspoint_fabric_rank(
  _ fabric: OpaquePointer?, _ rank: UnsafeMutablePointer<Int32>?, _ rankCount: UnsafeMutablePointer<Int32>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_rank", "fabric")
    rank?.pointee = Int32(owner.fabric.rank)
    rankCount?.pointee = Int32(owner.fabric.rankCount)
  }
}

@c @implementation
public func crosspoint_fabric_set_deadline(_ fabric: OpaquePointer?, _ seconds: Double) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_set_deadline", "fabric")
    owner.fabric.deadline = try deadline(seconds, "crosspoint_fabric_set_deadline")
  }
}

@c @implementation
public func crosspoint_fabric_on_wait(
  _ fabric: OpaquePointer?, _ check: (@convention(c) (UnsafeMutableRawPointer?) -> Int32)?,
  _ context: UnsafeMutableRawPointer?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_on_wait", "fabric")
    guard let fabric = owner.fabric as? MPIFabric else {
      throw invalid("crosspoint_fabric_on_wait", "fabric", "a simulated rank's: use crosspoint_cluster_cancel")
    }
    fabric.isInterrupted = check.map { check in { check(context) != 0 } }
  }
}

@c @implementation
public func crosspoint_fabric_barrier(_ fabric: OpaquePointer?) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_barrier", "fabric")
    try owner.fabric.barrier(operation: "barrier")
  }
}

@c @implementation
public func crosspoint_fabric_allreduce(
  _ fabric: OpaquePointer?, _ values: UnsafeMutablePointer<Float>?, _ count: Int64
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_allreduce", "fabric")
    // Both are the same on every rank, or a mistake in the program.
    guard (0...Int64.max / 4).contains(count), values != nil || count == 0 else {
      throw invalid("crosspoint_fabric_allreduce", "values", "\(count) at \(values == nil ? "NULL" : "an address")")
    }
    try owner.fabric.allreduce(UnsafeMutableBufferPointer(start: values, count: Int(count)), operation: "allreduce")
  }
}

@c @implementation
public func crosspoint_fabric_finalize(_ fabric: OpaquePointer?) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_finalize", "fabric")
    if let fabric = owner.fabric as? MPIFabric {
      try fabric.finalize()
    } else {
      try owner.fabric.barrier(operation: "finalize")
    }
  }
}

@c @implementation
public func crosspoint_fabric_abort(
  _ fabric: OpaquePointer?, _ exitCode: Int32, _ report: UnsafePointer<CChar>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_abort", "fabric")
    guard let fabric = owner.fabric as? MPIFabric else {
      throw invalid("crosspoint_fabric_abort", "fabric", "a simulated rank's: use crosspoint_fabric_leave")
    }
    fabric.abort(exitCode: exitCode) {
      guard let report else { return }
      _ = write(STDERR_FILENO, report, strlen(report))
      _ = write(STDERR_FILENO, "\n", 1)
    }
  }
}

@c @implementation
public func crosspoint_fabric_leave(
  _ fabric: OpaquePointer?, _ reason: UnsafePointer<CChar>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: RankOfC = try object(fabric, "crosspoint_fabric_leave", "fabric")
    owner.leave(reason.map { ProgramFailure(description: String(cString: $0)) })
  }
}

@c @implementation
public func crosspoint_fabric_free(_ fabric: OpaquePointer?) { takeBack(fabric, as: RankOfC.self) }
