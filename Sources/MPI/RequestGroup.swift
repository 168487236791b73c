internal import CMPI

/// Many messages of bytes under way at once, in bookkeeping memory that is allocated once and reused.
///
/// For transports: unlike ``Request`` it holds no buffers. The caller keeps all memory valid until a message is over, and
/// gets a number for each message, counted from zero since the last ``removeAll()``.
public final class RequestGroup {
  /// A message that came to its end.
  public struct Completion {
    /// The number of the message.
    public let index: Int
    /// Bytes received; for sends without meaning. `nil` where MPI cannot say.
    public let byteCount: Int?
    /// What it failed with.
    public let error: MPIError?
  }

  private let communicator: Communicator
  private var requests: UnsafeMutablePointer<cmpi_request>
  private var statuses: UnsafeMutablePointer<MPI_Status>
  private var indices: UnsafeMutablePointer<Int32>
  private var capacity: Int
  /// Messages since the last ``removeAll()``, whether over or not.
  public private(set) var count = 0

  /// - Parameter capacity: messages for which memory is kept from the start; it grows on demand.
  public init(on communicator: Communicator, capacity: Int = 16) {
    self.communicator = communicator
    self.capacity = max(1, capacity)
    requests = .allocate(capacity: self.capacity)
    statuses = .allocate(capacity: self.capacity)
    indices = .allocate(capacity: self.capacity)
  }

  deinit {
    requests.deallocate()
    statuses.deallocate()
    indices.deallocate()
  }

  /// Starts a receive and returns its number. (MPI_Irecv)
  public func receive(
    into bytes: UnsafeMutableRawBufferPointer, from source: Int, tag: Int
  ) throws(MPIError) -> Int {
    let length = try int32(bytes.count, "MPI_Irecv", rank: communicator.rank)
    let source = try int32(source, "MPI_Irecv", rank: communicator.rank)
    let tag = try int32(tag, "MPI_Irecv", rank: communicator.rank)
    let slot = next()
    try check(
      "MPI_Irecv", rank: communicator.rank,
      cmpi_irecv(bytes.baseAddress, length, cmpi_byte(), source, tag, communicator.raw, slot))
    return count - 1
  }

  /// Starts a send and returns its number. (MPI_Isend)
  public func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int) throws(MPIError) -> Int {
    let length = try int32(bytes.count, "MPI_Isend", rank: communicator.rank)
    let destination = try int32(destination, "MPI_Isend", rank: communicator.rank)
    let tag = try int32(tag, "MPI_Isend", rank: communicator.rank)
    let slot = next()
    try check(
      "MPI_Isend", rank: communicator.rank,
      cmpi_isend(bytes.baseAddress, length, cmpi_byte(), destination, tag, communicator.raw, slot))
    return count - 1
  }

  /// Lets MPI progress and reports each message that is over now. (MPI_Testsome)
  /// - Returns: how many were reported.
  public func testSome(_ report: (Completion) -> Void) throws(MPIError) -> Int {
    var done: Int32 = 0
    let length = try int32(count, "MPI_Testsome", rank: communicator.rank)
    let code = cmpi_testsome(length, requests, &done, indices, statuses)
    guard done > 0 else {
      try check("MPI_Testsome", rank: communicator.rank, code)
      return 0
    }
    // A failed message is over too, but not every MPI library clears its request.
    for position in 0..<Int(done) { requests[Int(indices[position])] = cmpi_request_null() }
    for position in 0..<Int(done) {
      let status = statuses[position]
      let index = Int(indices[position])
      // MPI fills the error field only when it reports an error in some status.
      let failed = code != cmpi_success() && status.MPI_ERROR != cmpi_success()
      let error = failed ? MPIError(code: status.MPI_ERROR, call: "MPI_Testsome", rank: communicator.rank) : nil
      let bytes = cmpi_byte_count(&statuses[position])
      report(Completion(index: index, byteCount: bytes < 0 ? nil : Int(bytes), error: error))
    }
    return Int(done)
  }

  /// Whether a message is still under way.
  public func isPending(_ index: Int) -> Bool {
    precondition(index < count, "message \(index) of \(count)")
    return cmpi_request_is_null(requests[index]) == 0
  }

  /// Gives a receive up. If its data have begun to arrive they may still be written. (MPI_Cancel)
  public func cancel(_ index: Int) {
    guard isPending(index) else { return }
    _ = cmpi_cancel(&requests[index])
    release(index)
  }

  /// Lets a message go on by itself: nobody will be told when its memory is free again. (MPI_Request_free)
  public func release(_ index: Int) {
    guard isPending(index) else { return }
    _ = cmpi_request_free(&requests[index])
    requests[index] = cmpi_request_null()
  }

  /// Starts counting from zero again. No message may be under way.
  public func removeAll() {
    assert((0..<count).allSatisfy { !isPending($0) }, "a message is still under way")
    count = 0
  }

  /// A free slot for a request.
  private func next() -> UnsafeMutablePointer<cmpi_request> {
    if count == capacity { grow() }
    let slot = requests + count
    slot.initialize(to: cmpi_request_null())
    count += 1
    return slot
  }

  private func grow() {
    let larger = UnsafeMutablePointer<cmpi_request>.allocate(capacity: 2 * capacity)
    larger.moveInitialize(from: requests, count: count)
    requests.deallocate()
    statuses.deallocate()
    indices.deallocate()
    capacity *= 2
    requests = larger
    statuses = .allocate(capacity: capacity)
    indices = .allocate(capacity: capacity)
  }
}
