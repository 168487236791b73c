internal import CMPI

/// Many messages of bytes under way at once, in bookkeeping memory that is allocated once and reused.
///
/// For transports: unlike ``Request`` it holds no buffers. The caller keeps all memory valid until a message is over, and
/// gets a number for each message, from zero on since the last ``removeAll()``. The numbers of messages that are over are
/// given again.
package final class RequestGroup {
  /// A message that has come and waits to be received.
  package struct Arrival {
    package let source: Int
    package let byteCount: Int
    let message: cmpi_message
  }

  private let communicator: Communicator
  private var requests: UnsafeMutablePointer<cmpi_request>
  private var statuses: UnsafeMutablePointer<MPI_Status>
  private var indices: UnsafeMutablePointer<Int32>
  private var capacity: Int
  /// Numbers of messages that are over.
  @exclusivity(unchecked) private var free: [Int] = []
  /// Numbers given since the last ``removeAll()``.
  @exclusivity(unchecked) package private(set) var count = 0

  /// - Parameters:
  ///   - communicator: where all its messages travel.
  ///   - capacity: messages for which memory is kept from the start; it grows on demand.
  package init(on communicator: Communicator, capacity: Int = 16) {
    self.communicator = communicator
    self.capacity = max(1, capacity)
    free.reserveCapacity(self.capacity)
    requests = .allocate(capacity: self.capacity)
    statuses = .allocate(capacity: self.capacity)
    indices = .allocate(capacity: self.capacity)
  }

  deinit {
    requests.deallocate()
    statuses.deallocate()
    indices.deallocate()
  }

  /// The next message with a tag that has come and waits to be received, from any rank; `nil` if there is none.
  /// Receive it next: nobody else can. (MPI_Improbe)
  package func arrival(tag: Int) throws(MPIError) -> Arrival? {
    let tag = try int32(tag, "MPI_Improbe", rank: communicator.rank)
    var found: Int32 = 0
    var message = cmpi_message()
    var status = MPI_Status()
    try check(
      "MPI_Improbe", rank: communicator.rank, cmpi_improbe(tag, communicator.raw, &found, &message, &status))
    guard found != 0 else { return nil }
    let bytes = cmpi_byte_count(&status)
    guard bytes >= 0 else {
      throw MPIError(.other, call: "MPI_Improbe", rank: communicator.rank, "a message of unknown length")
    }
    return Arrival(source: Int(status.MPI_SOURCE), byteCount: Int(bytes), message: message)
  }

  /// Starts to receive an arrival and returns its number. (MPI_Imrecv)
  /// - Parameters:
  ///   - arrival: what ``arrival(tag:)`` returned last.
  ///   - bytes: as many as the message has.
  @discardableResult
  package func receive(_ arrival: Arrival, into bytes: UnsafeMutableRawBufferPointer) throws(MPIError) -> Int {
    // Open MPI 4.1 copies a long message whole, past the end of a buffer that is too small.
    precondition(bytes.count == arrival.byteCount, "\(bytes.count) bytes for a message of \(arrival.byteCount)")
    let length = try int32(bytes.count, "MPI_Imrecv", rank: communicator.rank)
    var message = arrival.message
    let index = next()
    try check(
      "MPI_Imrecv", rank: communicator.rank,
      cmpi_imrecv(bytes.baseAddress, length, cmpi_byte(), &message, requests + index))
    return index
  }

  /// Starts a send and returns its number. (MPI_Isend)
  @discardableResult
  package func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int) throws(MPIError) -> Int {
    let length = try int32(bytes.count, "MPI_Isend", rank: communicator.rank)
    let destination = try int32(destination, "MPI_Isend", rank: communicator.rank)
    let tag = try int32(tag, "MPI_Isend", rank: communicator.rank)
    let index = next()
    try check(
      "MPI_Isend", rank: communicator.rank,
      cmpi_isend(bytes.baseAddress, length, cmpi_byte(), destination, tag, communicator.raw, requests + index))
    return index
  }

  /// Lets MPI progress and reports the number of each message that is over now. (MPI_Testsome)
  /// - Returns: how many were reported.
  /// - Throws: the first failure; other messages that are over are not reported.
  package func testSome(_ report: (Int) -> Void) throws(MPIError) -> Int {
    var done: Int32 = 0
    let length = try int32(count, "MPI_Testsome", rank: communicator.rank)
    let code = cmpi_testsome(length, requests, &done, indices, statuses)
    let finished = max(0, Int(done))
    guard code == cmpi_success() else { throw failure(code, finished) }
    for position in 0..<finished {
      let index = Int(indices[position])
      free.append(index)
      report(index)
    }
    return finished
  }

  private func failure(_ code: Int32, _ finished: Int) -> MPIError {
    var cause = code
    for position in (0..<finished).reversed() {
      // A failed message is over too, but not every MPI library clears its request.
      requests[Int(indices[position])] = cmpi_request_null()
      if statuses[position].MPI_ERROR != cmpi_success() { cause = statuses[position].MPI_ERROR }
    }
    return MPIError(code: cause, call: "MPI_Testsome", rank: communicator.rank)
  }

  /// Whether a message is still under way.
  package func isPending(_ index: Int) -> Bool {
    precondition(index < count, "message \(index) of \(count)")
    return cmpi_request_is_null(requests[index]) == 0
  }

  /// Lets a message go on by itself: nobody will be told when its memory is free again. (MPI_Request_free)
  package func release(_ index: Int) {
    guard isPending(index) else { return }
    _ = cmpi_request_free(&requests[index])
    requests[index] = cmpi_request_null()
  }

  /// Starts counting from zero again. No message may be under way.
  package func removeAll() {
    for index in 0..<count { precondition(!isPending(index), "message \(index) is still under way") }
    count = 0
    free.removeAll(keepingCapacity: true)
  }

  /// A number for a message.
  private func next() -> Int {
    if let index = free.popLast() { return index }
    if count == capacity { grow() }
    (requests + count).initialize(to: cmpi_request_null())
    count += 1
    return count - 1
  }

  private func grow() {
    let larger = UnsafeMutablePointer<cmpi_request>.allocate(capacity: 2 * capacity)
    larger.moveInitialize(from: requests, count: count)
    requests.deallocate()
    statuses.deallocate()
    indices.deallocate()
    capacity *= 2
    free.reserveCapacity(capacity)
    requests = larger
    statuses = .allocate(capacity: capacity)
    indices = .allocate(capacity: capacity)
  }
}
