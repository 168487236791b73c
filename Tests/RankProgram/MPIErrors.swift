import MPI

/// What MPI refuses comes back as an MPIError with class, call, rank and text, and the program goes on.
func mpiErrors(_ ranks: Ranks) throws {
  let world = ranks.world
  func refuses(_ what: String, _ errorClass: MPIError.Class, _ call: String, _ body: () throws -> Void) throws {
    let error = try ranks.expectError(MPIError.self, what, body)
    try ranks.expect(error.errorClass, is: errorClass, "class for \(what) (\(error))")
    try ranks.expect(error.call, is: call, "call for \(what)")
    try ranks.expect(error.rank, is: ranks.rank, "rank for \(what)")
    try ranks.expect(!error.text.isEmpty, "text for \(what)")
  }
  try refuses("a destination outside", .rank, "MPI_Send") { try world.send([Float(1)], to: ranks.count) }
  try refuses("a root outside", .root, "MPI_Bcast") {
    var values: [Float] = [1]
    try world.broadcast(&values, from: ranks.count + 3)
  }
  try refuses("a negative tag", .tag, "MPI_Isend") {
    _ = try world.isend(Buffer<Float>([1]), to: 0, tag: -7)
  }
  try refuses("a reduction of the wrong type", .reduction, "MPI_Allreduce") {
    _ = try world.allreduce(Float(1), .bitwiseOr)
  }
  try refuses("a count beyond 32 bits", .count, "MPI_Send") {
    // Never read: the count is refused first.
    let absurd = UnsafeBufferPointer(start: UnsafePointer<UInt8>(bitPattern: 64), count: Int(Int32.max) + 1)
    try world.send(absurd, to: 0)
  }
  let negative = try ranks.expectError(MPIError.self, "a negative count") { _ = try Blocks(counts: [1, -1]) }
  try ranks.expect(negative.errorClass, is: .argument, "class for a negative count")
  let wide = try ranks.expectError(MPIError.self, "an offset beyond 32 bits") {
    _ = try Blocks(counts: [Int(Int32.max), 1, 1])
  }
  try ranks.expect(wide.errorClass, is: .count, "class for an offset beyond 32 bits")

  // A message longer than its buffer, to this rank itself.
  let sent = try world.isend(Buffer<Int32>([1, 2, 3]), to: ranks.rank, tag: 1)
  try refuses("a message too long", .truncate, "MPI_Recv") {
    var short: [Int32] = [0]
    try world.receive(into: &short, from: ranks.rank, tag: 1)
  }
  try sent.wait()
  let again = try world.isend(Buffer<Int32>([1, 2, 3]), to: ranks.rank, tag: 2)
  try refuses("a message too long, non-blocking", .truncate, "MPI_Irecv") {
    try world.ireceive(into: Buffer<Int32>([0]), from: ranks.rank, tag: 2).wait()
  }
  try again.wait()
  try ranks.expect(try world.allreduce(Int32(1), .sum), is: Int32(ranks.count), "MPI works after all these errors")
}
