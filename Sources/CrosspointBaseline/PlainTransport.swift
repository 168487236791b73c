import Crosspoint
import MPI

/// How the plain baseline moves bytes.
package protocol PlainTransport {
  /// Sends one equal part to every rank.
  func alltoall(_ send: [Int32]) throws(CrosspointError) -> [Int32]
  /// Sends `sendCounts[p]` floats to rank p, blocks one behind the other; receives likewise.
  func alltoallv(
    _ send: UnsafePointer<Float>, _ sendCounts: [Int], into receive: UnsafeMutablePointer<Float>, _ receiveCounts: [Int]
  ) throws(CrosspointError)
}

/// MPI_Alltoall and MPI_Alltoallv, as any program would call them.
package struct MPITransport: PlainTransport {
  private let communicator: Communicator
  private let deadline: Duration?

  /// - Parameter deadline: how long a call may wait for the other ranks before one line says so and the process ends; `nil`:
  ///   for ever. It costs a call some microseconds.
  package init(communicator: Communicator, deadline: Duration? = nil) {
    self.communicator = communicator
    self.deadline = deadline
  }

  package func alltoall(_ send: [Int32]) throws(CrosspointError) -> [Int32] {
    try call("MPI_Alltoall", "alltoall") { () throws(MPIError) in try communicator.alltoall(send) }
  }

  package func alltoallv(
    _ send: UnsafePointer<Float>, _ sendCounts: [Int], into receive: UnsafeMutablePointer<Float>, _ receiveCounts: [Int]
  ) throws(CrosspointError) {
    try call("MPI_Alltoallv", "alltoallv") { () throws(MPIError) in
      let (sendBlocks, receiveBlocks) = (try Blocks(counts: sendCounts), try Blocks(counts: receiveCounts))
      try communicator.alltoallv(
        UnsafeBufferPointer(start: send, count: sendBlocks.end), sendBlocks,
        into: UnsafeMutableBufferPointer(start: receive, count: receiveBlocks.end), receiveBlocks)
    }
  }

  private func call<Result>(
    _ name: String, _ operation: String, _ body: () throws(MPIError) -> Result
  ) throws(CrosspointError) -> Result {
    do {
      guard let deadline else { return try body() }
      return try MPIFabric.bounded(name, operation, deadline, body)
    } catch {
      throw CrosspointError(error, operation: operation)
    }
  }
}

/// The same over a fabric, for runs without MPI.
package struct FabricTransport: PlainTransport {
  private let fabric: any Fabric

  package init(fabric: any Fabric) { self.fabric = fabric }

  package func alltoall(_ send: [Int32]) throws(CrosspointError) -> [Int32] {
    var receive = send
    let part = send.count / fabric.rankCount * MemoryLayout<Int32>.stride
    let parts = Array(repeating: part, count: fabric.rankCount)
    try send.withUnsafeBufferPointer { send throws(CrosspointError) in
      try receive.withUnsafeMutableBufferPointer { receive throws(CrosspointError) in
        try exchange(UnsafeRawBufferPointer(send), UnsafeMutableRawBufferPointer(receive), parts, parts)
      }
    }
    return receive
  }

  package func alltoallv(
    _ send: UnsafePointer<Float>, _ sendCounts: [Int], into receive: UnsafeMutablePointer<Float>, _ receiveCounts: [Int]
  ) throws(CrosspointError) {
    let (sendBytes, receiveBytes) = (sendCounts.map { 4 * $0 }, receiveCounts.map { 4 * $0 })
    try exchange(
      UnsafeRawBufferPointer(start: send, count: sendBytes.reduce(0, +)),
      UnsafeMutableRawBufferPointer(start: receive, count: receiveBytes.reduce(0, +)), sendBytes, receiveBytes)
  }

  private func exchange(
    _ send: UnsafeRawBufferPointer, _ receive: UnsafeMutableRawBufferPointer, _ sendBytes: [Int], _ receiveBytes: [Int]
  ) throws(CrosspointError) {
    var (sendStart, receiveStart) = (0, 0)
    var outgoing: [UnsafeRawBufferPointer] = []
    var incoming: [UnsafeMutableRawBufferPointer] = []
    for (sendCount, receiveCount) in zip(sendBytes, receiveBytes) {
      outgoing.append(UnsafeRawBufferPointer(rebasing: send[sendStart..<sendStart + sendCount]))
      incoming.append(UnsafeMutableRawBufferPointer(rebasing: receive[receiveStart..<receiveStart + receiveCount]))
      sendStart += sendCount
      receiveStart += receiveCount
    }
    try fabric.exchange(send: outgoing, receive: incoming, operation: "alltoallv")
  }
}
