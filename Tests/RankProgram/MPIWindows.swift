import MPI

/// Every rank of the node sees what every other wrote into its part of a shared window; parts may differ in size.
func mpiWindows(_ ranks: Ranks) throws {
  let node = try ranks.world.splitShared()
  func size(_ rank: Int) -> Int { rank == 1 ? 0 : 100 + rank }
  let window = try SharedWindow<Int64>(on: node, count: size(node.rank))
  try window.fence()
  for index in window.mine.indices { window.mine[index] = Int64(1000 * node.rank + index) }
  try window.fence()
  for rank in 0..<node.size {
    let part = try window.part(of: rank)
    try ranks.expect(Array(part), is: (0..<size(rank)).map { Int64(1000 * rank + $0) }, "part of rank \(rank)")
  }
  try window.fence()

  // Written by a peer, straight into this rank's part.
  try window.lockAll()
  let peer = (node.rank + 1) % node.size
  let target = try window.part(of: peer)
  if let last = target.indices.last { target[last] = Int64(-node.rank) }
  try window.sync()
  try node.barrier()
  try window.sync()
  if let last = window.mine.last {
    try ranks.expect(last, is: -Int64((node.rank + node.size - 1) % node.size), "written by the previous rank")
  }
  try window.unlockAll()
  try window.free()
  try window.free()
}
