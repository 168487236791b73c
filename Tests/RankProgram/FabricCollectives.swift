import CrosspointCore
import CrosspointFabric
import CrosspointMPI
import MPI

/// A fabric of the whole job, in a program that runs MPI itself, leaves MPI running when it ends.
func fabricWorld(_ ranks: Ranks) throws {
  let fabric = try MPIFabric.world(deadline: .seconds(30))
  try ranks.expect([fabric.rank, fabric.rankCount], is: [ranks.rank, ranks.count], "rank and rank count")
  try ranks.expect(fabric.deadline, is: .seconds(30), "deadline")
  try fabric.barrier(operation: "barrier")
  try fabric.finalize()
  try ranks.expect(MPIEnvironment.isRunning, "MPI still runs")
}

/// The collectives that every fabric inherits, over MPI: sums in rank order bit for bit, small and large.
func fabricAllreduce(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for count in [0, 1, 3, 600, 50_001] {
    func values(of rank: Int) -> [Float] {
      var random = SplitMix64(seed: UInt64(rank + 1))
      return (0..<count).map { _ in random.nextUnit() * 1000 - 500 }
    }
    var expected = values(of: 0)
    for rank in 1..<max(1, ranks.count) {
      for (index, value) in values(of: rank).enumerated() { expected[index] += value }
    }
    var found = values(of: ranks.rank)
    try found.withUnsafeMutableBufferPointer { try fabric.allreduce($0, operation: "allreduce") }
    try ranks.expect(found.map(\.bitPattern), is: expected.map(\.bitPattern), "sum of \(count) floats")
  }
  var doubles = [Double(ranks.rank), 0.5]
  try doubles.withUnsafeMutableBufferPointer { try fabric.allreduce($0, operation: "allreduce") }
  try ranks.expect(doubles, is: [Double(ranks.count * ranks.last / 2), Double(ranks.count) / 2], "doubles")

  let mine = Array(repeating: UInt8(ranks.rank), count: 3)
  var all = Array(repeating: UInt8(0xFF), count: 3 * ranks.count)
  try mine.withUnsafeBytes { mine in
    try all.withUnsafeMutableBytes { try fabric.allgather(mine, into: $0, operation: "allgather") }
  }
  try ranks.expect(all, is: (0..<ranks.count).flatMap { Array(repeating: UInt8($0), count: 3) }, "allgather")

  for root in 0..<ranks.count {
    var bytes = [UInt8(ranks.rank), 7]
    try bytes.withUnsafeMutableBytes { try fabric.broadcast($0, from: root, operation: "broadcast") }
    try ranks.expect(bytes, is: [UInt8(root), 7], "broadcast from \(root)")
  }
  try fabric.barrier(operation: "barrier")
}
