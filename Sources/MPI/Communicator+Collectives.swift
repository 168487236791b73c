internal import CMPI

/// Collectives over buffers: every rank of the communicator must call them, in the same order, with sizes that fit.
extension Communicator {
  /// Returns when every rank has called it. (MPI_Barrier)
  public func barrier() throws(MPIError) {
    try check("MPI_Barrier", rank: rank, cmpi_barrier(raw))
  }

  /// Copies the root's elements over everybody's. (MPI_Bcast)
  public func broadcast<Element: Datatype>(
    _ elements: UnsafeMutableBufferPointer<Element>, from root: Int
  ) throws(MPIError) {
    let count = try int32(elements.count, "MPI_Bcast", rank: rank)
    let root = try int32(root, "MPI_Bcast", rank: rank)
    try check("MPI_Bcast", rank: rank, cmpi_bcast(elements.baseAddress, count, Element.datatype.raw, root, raw))
  }

  /// Replaces each element by its reduction over all ranks. (MPI_Allreduce, in place)
  ///
  /// The order in which floating-point numbers are added is the library's choice.
  public func allreduce<Element: Datatype>(
    _ elements: UnsafeMutableBufferPointer<Element>, _ reduction: Reduction
  ) throws(MPIError) {
    let count = try int32(elements.count, "MPI_Allreduce", rank: rank)
    try check(
      "MPI_Allreduce", rank: rank,
      cmpi_allreduce_in_place(elements.baseAddress, count, Element.datatype.raw, reduction.raw, raw))
  }

  /// Collects everybody's elements, in rank order. (MPI_Allgather)
  /// - Parameters:
  ///   - mine: this rank's, as many on every rank.
  ///   - all: `size · mine.count` elements.
  public func allgather<Element: Datatype>(
    _ mine: UnsafeBufferPointer<Element>, into all: UnsafeMutableBufferPointer<Element>
  ) throws(MPIError) {
    precondition(all.count == size * mine.count, "\(all.count) elements for \(size) ranks of \(mine.count)")
    let count = try int32(mine.count, "MPI_Allgather", rank: rank)
    try check(
      "MPI_Allgather", rank: rank, cmpi_allgather(mine.baseAddress, count, Element.datatype.raw, all.baseAddress, raw))
  }

  /// Collects everybody's elements, of any number each, in the blocks of their ranks. (MPI_Allgatherv)
  /// - Parameter blocks: the same counts on every rank; this rank's is `mine.count`.
  package func allgatherv<Element: Datatype>(
    _ mine: UnsafeBufferPointer<Element>, into all: UnsafeMutableBufferPointer<Element>, _ blocks: Blocks
  ) throws(MPIError) {
    blocks.preconditionFits(ranks: size, elements: all.count)
    let count = try int32(mine.count, "MPI_Allgatherv", rank: rank)
    try check(
      "MPI_Allgatherv", rank: rank,
      cmpi_allgatherv(
        mine.baseAddress, count, all.baseAddress, blocks.counts, blocks.offsets, Element.datatype.raw, raw))
  }

  /// Reduces everybody's elements, and gives each rank a block of the result. (MPI_Reduce_scatter)
  ///
  /// The order in which floating-point numbers are added is the library's choice.
  /// - Parameters:
  ///   - all: as many on every rank, the blocks of all ranks one behind the other.
  ///   - counts: elements of each rank's block, the same on every rank; this rank's is `mine.count`.
  package func reduceScatter<Element: Datatype>(
    _ all: UnsafeBufferPointer<Element>, into mine: UnsafeMutableBufferPointer<Element>, _ counts: [Int],
    _ reduction: Reduction
  ) throws(MPIError) {
    let blocks = try Blocks(counts: counts)
    blocks.preconditionFits(ranks: size, elements: all.count)
    precondition(mine.count == counts[rank], "\(mine.count) elements for a block of \(counts[rank])")
    try check(
      "MPI_Reduce_scatter", rank: rank,
      cmpi_reduce_scatter(
        all.baseAddress, mine.baseAddress, blocks.counts, Element.datatype.raw, reduction.raw, raw))
  }

  /// Sends the p-th of `size` equal parts to rank p, and receives likewise. (MPI_Alltoall)
  public func alltoall<Element: Datatype>(
    _ send: UnsafeBufferPointer<Element>, into receive: UnsafeMutableBufferPointer<Element>
  ) throws(MPIError) {
    precondition(send.count == receive.count, "\(send.count) elements to send, \(receive.count) to receive")
    precondition(send.count % size == 0, "\(send.count) elements do not divide by \(size) ranks")
    let count = try int32(send.count / size, "MPI_Alltoall", rank: rank)
    try check(
      "MPI_Alltoall", rank: rank, cmpi_alltoall(send.baseAddress, count, Element.datatype.raw, receive.baseAddress, raw)
    )
  }

  /// Sends block p of `send` to rank p, and receives likewise. (MPI_Alltoallv)
  ///
  /// A rank that sends more than its peer expects is an error; one that sends less is not, and leaves the rest of the
  /// peer's block untouched: exchange the counts first. (The error may come after the harm: see
  /// `receive(into:from:tag:)`.)
  public func alltoallv<Element: Datatype>(
    _ send: UnsafeBufferPointer<Element>, _ sendBlocks: Blocks,
    into receive: UnsafeMutableBufferPointer<Element>, _ receiveBlocks: Blocks
  ) throws(MPIError) {
    sendBlocks.preconditionFits(ranks: size, elements: send.count)
    receiveBlocks.preconditionFits(ranks: size, elements: receive.count)
    try check(
      "MPI_Alltoallv", rank: rank,
      cmpi_alltoallv(
        send.baseAddress, sendBlocks.counts, sendBlocks.offsets, receive.baseAddress, receiveBlocks.counts,
        receiveBlocks.offsets, Element.datatype.raw, raw))
  }
}

/// Where the block of each rank lies in a buffer, in elements.
public struct Blocks: Sendable, Hashable {
  let counts: [Int32]
  let offsets: [Int32]
  /// One past the last element of any block.
  public let end: Int

  /// - Parameters:
  ///   - counts: elements of each rank's block.
  ///   - offsets: where each block starts; by default one behind the other.
  /// - Throws: ``MPIError/Class/count`` if a number does not fit 32 bits, ``MPIError/Class/argument`` if one is negative or
  ///   the two arrays differ in length.
  public init(counts: [Int], offsets: [Int]? = nil) throws(MPIError) {
    var starts = offsets ?? []
    if offsets == nil {
      var next = 0
      for count in counts {
        starts.append(next)
        next += count
      }
    }
    guard starts.count == counts.count, (counts + starts).allSatisfy({ $0 >= 0 }) else {
      throw MPIError(.argument, call: "MPI_Alltoallv", "counts \(counts) and offsets \(starts) do not describe blocks")
    }
    self.counts = try counts.map { count throws(MPIError) in try int32(count, "MPI_Alltoallv") }
    self.offsets = try starts.map { start throws(MPIError) in try int32(start, "MPI_Alltoallv") }
    end = zip(counts, starts).map { $0 == 0 ? 0 : $0 + $1 }.max() ?? 0
  }

  func preconditionFits(ranks: Int, elements: Int) {
    precondition(counts.count == ranks, "\(counts.count) blocks for \(ranks) ranks")
    precondition(end <= elements, "blocks end at \(end) in a buffer of \(elements) elements")
  }
}
