import CrosspointCore

/// How bytes reach the other ranks: the one thing that Crosspoint asks of a transport.
///
/// Two implementations exist: `MPIFabric` (module CrosspointMPI) under mpirun, and ``SimulatedCluster``, whose ranks are
/// threads of one process. Everything else (``allreduce(_:operation:)``, ``barrier(operation:)``, …) is built on
/// ``exchange(send:receive:operation:arrived:)`` in one place, so both give the same bits and every wait has the same deadline.
///
/// A fabric belongs to one thread. All methods are collective: every rank must call them in the same order.
public protocol Fabric: AnyObject {
  /// This rank, in `0 ..< rankCount`.
  var rank: Int { get }
  /// The number of ranks, at least one.
  var rankCount: Int { get }
  /// How long a rank waits for another before it throws ``CrosspointError/Code/deadlineExceeded`` naming the silent rank.
  var deadline: Duration { get set }

  /// Sends `send[p]` to every rank p and fills `receive[p]` with what rank p sends here. Collective.
  ///
  /// - Parameters:
  ///   - send: one block per rank, `send[rank]` included (copied locally).
  ///   - receive: one block per rank; `receive[p].count` must equal the bytes that p sends here. A rank that sends more
  ///     or fewer bytes is caught: ``CrosspointError/Code/truncatedFrame`` naming the sender.
  ///   - operation: the public call on whose behalf this runs, for error messages.
  ///   - arrived: called once per rank as soon as `receive[p]` is complete (empty blocks included), in the order of
  ///     arrival, while other blocks are still under way.
  /// - Throws: `truncatedFrame`, `deadlineExceeded`, `rankLost`, `transport`. After an error the fabric is unusable.
  func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], operation: StaticString,
    arrived: (_ source: Int) -> Void
  ) throws(CrosspointError)
}

extension Fabric {
  /// ``exchange(send:receive:operation:arrived:)`` without a callback.
  public func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], operation: StaticString
  ) throws(CrosspointError) {
    try exchange(send: send, receive: receive, operation: operation, arrived: { _ in })
  }
}
