import Crosspoint
import MPI

/// docs/using.md, "Experts within groups". Four ranks of an MPI job.
func groups() throws {
  let size = 2
  let layout = try ExpertLayout(experts: 2, hidden: 4)
  let tokens = try TokenBatch([Float](repeating: 1, count: 4 * 4), hidden: 4)
  let routing = try Routing(
    topkIndices: [0, 1, 0, 1], topkWeights: [1, 1, 1, 1], topK: 1, experts: 2)

  // snippet: groups
  let world = try MPIFabric.world()
  // `size` ranks in a row hold all experts; the next ones hold them again.
  let group = try MPIFabric(world.communicator.split(color: world.rank / size)!)
  let replicas = try MPIFabric(world.communicator.split(color: world.rank % size)!)
  let exchange = try ExpertExchange(fabric: group, layout: layout)
  // end

  let handle = try exchange.dispatch(tokens, routing)
  var gradients = [Float(handle.rows.rows)]

  // snippet: groups
  // After the backward pass:
  try gradients.withUnsafeMutableBufferPointer {
    try replicas.allreduce($0, operation: "experts")
  }
  // end

  try expect(group.rankCount == size && replicas.rankCount == world.rankCount / size, "groups, and their number")
  try expect(exchange.localExperts.count == 1 && handle.rows.rows == 4, "two tokens of each rank of the group")
  try expect(gradients[0] == Float(2 * world.rankCount), "two tokens of each rank of the job")
  try replicas.finalize()
  try group.finalize()
  try world.finalize()
}
