import Crosspoint
import MPI

/// How a baseline moves bytes.
package protocol PlainTransport {
  /// Sends one equal part to every rank.
  func alltoall(_ send: [Int32]) throws(CrosspointError) -> [Int32]
  /// Sends `sendCounts[p]` floats to rank p, blocks one behind the other; receives likewise.
  func alltoallv(
    _ send: UnsafePointer<Float>, _ sendCounts: [Int], into receive: UnsafeMutablePointer<Float>, _ receiveCounts: [Int]
  ) throws(CrosspointError)
  /// Collects everybody's floats, `counts[p]` of rank p, in rank order.
  func allgatherv(
    _ mine: UnsafePointer<Float>, into all: UnsafeMutablePointer<Float>, _ counts: [Int]
  ) throws(CrosspointError)
  /// Adds everybody's `all`, and gives rank p its block of `counts[p]` floats.
  func reduceScatter(
    _ all: UnsafePointer<Float>, into mine: UnsafeMutablePointer<Float>, _ counts: [Int]
  ) throws(CrosspointError)
}

/// The collectives of MPI, as any program would call them.
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

  package func allgatherv(
    _ mine: UnsafePointer<Float>, into all: UnsafeMutablePointer<Float>, _ counts: [Int]
  ) throws(CrosspointError) {
    try call("MPI_Allgatherv", "allgatherv") { () throws(MPIError) in
      let blocks = try Blocks(counts: counts)
      try communicator.allgatherv(
        UnsafeBufferPointer(start: mine, count: counts[communicator.rank]),
        into: UnsafeMutableBufferPointer(start: all, count: blocks.end), blocks)
    }
  }

  package func reduceScatter(
    _ all: UnsafePointer<Float>, into mine: UnsafeMutablePointer<Float>, _ counts: [Int]
  ) throws(CrosspointError) {
    try call("MPI_Reduce_scatter", "reduceScatter") { () throws(MPIError) in
      try communicator.reduceScatter(
        UnsafeBufferPointer(start: all, count: counts.reduce(0, +)),
        into: UnsafeMutableBufferPointer(start: mine, count: counts[communicator.rank]), counts, .sum)
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

  package func allgatherv(
    _ mine: UnsafePointer<Float>, into all: UnsafeMutablePointer<Float>, _ counts: [Int]
  ) throws(CrosspointError) {
    let block = UnsafeRawBufferPointer(start: mine, count: 4 * counts[fabric.rank])
    var (incoming, start) = ([UnsafeMutableRawBufferPointer](), all)
    for count in counts {
      incoming.append(UnsafeMutableRawBufferPointer(start: start, count: 4 * count))
      start += count
    }
    try fabric.exchange(send: counts.map { _ in block }, receive: incoming, operation: "allgatherv")
  }

  package func reduceScatter(
    _ all: UnsafePointer<Float>, into mine: UnsafeMutablePointer<Float>, _ counts: [Int]
  ) throws(CrosspointError) {
    let count = counts[fabric.rank]
    let parts = try TokenBatch(rows: fabric.rankCount, hidden: max(1, count))
    try alltoallv(all, counts, into: parts.base, counts.map { _ in count })
    mine.update(repeating: 0, count: count)
    for rank in counts.indices { kernels.axpy(mine, 1, parts.base + rank * count, count) }
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
