internal import CMPI

/// Receives from whoever sends; for the `from` of a receive.
public var anySource: Int { Int(cmpi_any_source()) }
/// Receives whatever the tag; for the `tag` of a receive.
public var anyTag: Int { Int(cmpi_any_tag()) }

/// Messages from one rank to one other. Each returns when the buffer may be used again.
extension Communicator {
  /// Sends the elements to a rank. May wait until that rank receives. (MPI_Send)
  public func send<Element: Datatype>(
    _ elements: UnsafeBufferPointer<Element>, to destination: Int, tag: Int = 0
  ) throws(MPIError) {
    let count = try int32(elements.count, "MPI_Send", rank: rank)
    let destination = try int32(destination, "MPI_Send", rank: rank)
    let tag = try int32(tag, "MPI_Send", rank: rank)
    try check(
      "MPI_Send", rank: rank, cmpi_send(elements.baseAddress, count, Element.datatype.raw, destination, tag, raw))
  }

  /// Fills the front of `elements` with a message. (MPI_Recv)
  /// - Throws: ``MPIError/Class/truncate`` if the message is longer. A shorter one is no error: look at the status.
  /// - Warning: Open MPI 4.1 reports a message that is too long, but between ranks of one node it may already have written
  ///   all of it, past the end of the buffer. Agree on lengths first.
  @discardableResult
  public func receive<Element: Datatype>(
    into elements: UnsafeMutableBufferPointer<Element>, from source: Int, tag: Int = 0
  ) throws(MPIError) -> Status {
    let count = try int32(elements.count, "MPI_Recv", rank: rank)
    let source = try int32(source, "MPI_Recv", rank: rank)
    let tag = try int32(tag, "MPI_Recv", rank: rank)
    var status = MPI_Status()
    try check(
      "MPI_Recv", rank: rank, cmpi_recv(elements.baseAddress, count, Element.datatype.raw, source, tag, raw, &status))
    return Status(status)
  }

  /// Sends an array; see the form for buffers.
  public func send<Element: Datatype>(_ elements: [Element], to destination: Int, tag: Int = 0) throws(MPIError) {
    try elements.withUnsafeBufferPointer { buffer throws(MPIError) in
      try send(buffer, to: destination, tag: tag)
    }
  }

  /// Fills the front of an array; see the form for buffers.
  @discardableResult
  public func receive<Element: Datatype>(
    into elements: inout [Element], from source: Int, tag: Int = 0
  ) throws(MPIError) -> Status {
    try elements.withUnsafeMutableBufferPointer { buffer throws(MPIError) in
      try receive(into: buffer, from: source, tag: tag)
    }
  }
}
