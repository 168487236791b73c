internal import CMPI

/// Elements that a request can hold on to while MPI works on them.
public final class Buffer<Element: Datatype> {
  public let elements: UnsafeMutableBufferPointer<Element>

  public init(repeating value: Element, count: Int) {
    elements = .allocate(capacity: count)
    elements.initialize(repeating: value)
  }

  public init(_ array: [Element]) {
    elements = .allocate(capacity: array.count)
    _ = elements.initialize(fromContentsOf: array)
  }

  deinit { elements.deallocate() }

  public var count: Int { elements.count }
  public var array: [Element] { Array(elements) }
  public subscript(index: Int) -> Element {
    get { elements[index] }
    set { elements[index] = newValue }
  }
}

/// An operation under way. Holds its buffers, counts and communicator until it is over.
///
/// Requests progress inside MPI calls only. One that is dropped before it is over keeps its buffers for the rest of the
/// program, since MPI may still read and write them.
public final class Request {
  var raw = cmpi_request_null()
  private let communicator: Communicator
  private let call: StaticString
  private var kept: [AnyObject]
  /// The status, once the operation is over.
  public private(set) var status: Status?

  init(
    _ call: StaticString, on communicator: Communicator, keeping kept: [AnyObject],
    start: (UnsafeMutablePointer<cmpi_request>) -> Int32
  ) throws(MPIError) {
    self.call = call
    self.communicator = communicator
    self.kept = kept
    try check(call, rank: communicator.rank, start(&raw))
  }

  deinit {
    guard cmpi_request_is_null(raw) == 0, MPIEnvironment.isRunning, (try? test()) == nil else { return }
    _ = Unmanaged.passRetained(communicator)
    for object in kept { _ = Unmanaged.passRetained(object) }
  }

  /// Waits for the end. (MPI_Wait) Again: returns the same status.
  /// - Throws: what the operation failed with, for example ``MPIError/Class/truncate``.
  @discardableResult
  public func wait() throws(MPIError) -> Status {
    if let status { return status }
    var status = MPI_Status()
    return finish(try outcome(cmpi_wait(&raw, &status)), status)
  }

  /// The status if the operation is over, else `nil`, without waiting. (MPI_Test)
  public func test() throws(MPIError) -> Status? {
    if let status { return status }
    var status = MPI_Status()
    var done: Int32 = 0
    try outcome(cmpi_test(&raw, &done, &status))
    return done == 0 ? nil : finish((), status)
  }

  /// Asks MPI to give a receive up. Wait for it afterwards; ``Status/isCancelled`` tells whether it was. (MPI_Cancel)
  public func cancel() throws(MPIError) {
    guard cmpi_request_is_null(raw) == 0 else { return }
    try check("MPI_Cancel", rank: communicator.rank, cmpi_cancel(&raw))
  }

  /// Waits until one of the operations is over and returns its index; `nil` when all are over already. (MPI_Waitany)
  public static func waitAny(_ requests: [Request]) throws(MPIError) -> Int? {
    var raws = requests.map(\.raw)
    var index = cmpi_undefined()
    var status = MPI_Status()
    let count = try int32(raws.count, "MPI_Waitany")
    let code = cmpi_waitany(count, &raws, &index, &status)
    guard index != cmpi_undefined() else {
      try check("MPI_Waitany", code)
      return nil
    }
    let request = requests[Int(index)]
    request.raw = raws[Int(index)]
    request.finish(try request.outcome(code), status)
    return Int(index)
  }

  /// Waits for all of them.
  public static func waitAll(_ requests: [Request]) throws(MPIError) {
    for request in requests { try request.wait() }
  }

  private func outcome(_ code: Int32) throws(MPIError) {
    guard code != cmpi_success() else { return }
    // A failed operation is over.
    if cmpi_request_is_null(raw) != 0 { kept = [] }
    throw MPIError(code: code, call: call, rank: communicator.rank)
  }

  @discardableResult
  private func finish(_: Void, _ status: MPI_Status) -> Status {
    let status = Status(status)
    self.status = status
    kept = []
    return status
  }
}
