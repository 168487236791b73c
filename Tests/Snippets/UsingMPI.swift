/// docs/using.md, "MPI alone". Every rank of an MPI job.
// snippet: mpi
import MPI

func greet() throws {
  try MPIEnvironment.initialize()
  let world = try Communicator.world()

  // Everybody's rank, summed; everybody's square, by rank.
  let sum = try world.allreduce(Int64(world.rank), .sum)
  let squares = try world.allgather(Float(world.rank * world.rank))

  // A message around the ring, received while the own one is under way.
  let mine = Buffer<Double>([Double(world.rank)])
  let request = try world.isend(mine, to: (world.rank + 1) % world.size)
  var theirs: [Double] = [0]
  try world.receive(into: &theirs, from: (world.rank + world.size - 1) % world.size)
  try request.wait()

  if world.rank == 0 {
    print("\(world.size) ranks: sum \(sum), squares \(squares), from the left \(theirs[0])")
  }
  try MPIEnvironment.finalize()
}
// end

func mpi() throws { try greet() }
