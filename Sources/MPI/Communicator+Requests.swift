internal import CMPI

/// Operations that return at once; see ``Request``.
extension Communicator {
  /// Starts sending a buffer, which must not be written until the request is over. (MPI_Isend)
  public func isend<Element: Datatype>(
    _ buffer: Buffer<Element>, to destination: Int, tag: Int = 0
  ) throws(MPIError) -> Request {
    let count = try int32(buffer.count, "MPI_Isend", rank: rank)
    let destination = try int32(destination, "MPI_Isend", rank: rank)
    let tag = try int32(tag, "MPI_Isend", rank: rank)
    return try Request("MPI_Isend", on: self, keeping: [buffer]) {
      cmpi_isend(buffer.elements.baseAddress, count, Element.datatype.raw, destination, tag, raw, $0)
    }
  }

  /// Starts receiving into a buffer, which must not be touched until the request is over. (MPI_Irecv)
  public func ireceive<Element: Datatype>(
    into buffer: Buffer<Element>, from source: Int, tag: Int = 0
  ) throws(MPIError) -> Request {
    let count = try int32(buffer.count, "MPI_Irecv", rank: rank)
    let source = try int32(source, "MPI_Irecv", rank: rank)
    let tag = try int32(tag, "MPI_Irecv", rank: rank)
    return try Request("MPI_Irecv", on: self, keeping: [buffer]) {
      cmpi_irecv(buffer.elements.baseAddress, count, Element.datatype.raw, source, tag, raw, $0)
    }
  }

  /// Starts an ``alltoallv(_:_:into:_:)``. Collective. (MPI_Ialltoallv)
  public func ialltoallv<Element: Datatype>(
    _ send: Buffer<Element>, _ sendBlocks: Blocks, into receive: Buffer<Element>, _ receiveBlocks: Blocks
  ) throws(MPIError) -> Request {
    sendBlocks.preconditionFits(ranks: size, elements: send.count)
    receiveBlocks.preconditionFits(ranks: size, elements: receive.count)
    // MPI reads these four arrays until the request is over, so they need an address that stays.
    let numbers = Buffer<Int32>(sendBlocks.counts + sendBlocks.offsets + receiveBlocks.counts + receiveBlocks.offsets)
    guard let base = numbers.elements.baseAddress else { preconditionFailure("a communicator without ranks") }
    return try Request("MPI_Ialltoallv", on: self, keeping: [send, receive, numbers]) {
      cmpi_ialltoallv(
        send.elements.baseAddress, base, base + size, receive.elements.baseAddress, base + 2 * size, base + 3 * size,
        Element.datatype.raw, raw, $0)
    }
  }
}
