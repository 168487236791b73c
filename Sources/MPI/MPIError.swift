internal import CMPI

/// A failed MPI call: what MPI calls the error, what it says about it, in which call and on which rank.
public struct MPIError: Error, Sendable, Hashable {
  /// MPI's error class. The numbers belong to the MPI library in use: compare with the names only.
  public struct Class: RawRepresentable, Sendable, Hashable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// A buffer pointer is invalid.
    public static let buffer = Class(rawValue: cmpi_err_buffer())
    /// A count is negative or does not fit 32 bits.
    public static let count = Class(rawValue: cmpi_err_count())
    /// A datatype is invalid.
    public static let type = Class(rawValue: cmpi_err_type())
    /// A tag is out of range.
    public static let tag = Class(rawValue: cmpi_err_tag())
    /// A communicator is invalid, or was freed.
    public static let communicator = Class(rawValue: cmpi_err_comm())
    /// A rank is outside its communicator.
    public static let rank = Class(rawValue: cmpi_err_rank())
    /// A root is outside its communicator.
    public static let root = Class(rawValue: cmpi_err_root())
    /// A reduction does not exist for the datatype.
    public static let reduction = Class(rawValue: cmpi_err_op())
    /// Another argument is invalid.
    public static let argument = Class(rawValue: cmpi_err_arg())
    /// A message was longer than the buffer meant for it.
    public static let truncate = Class(rawValue: cmpi_err_truncate())
    /// There is not enough memory.
    public static let memory = Class(rawValue: cmpi_err_no_mem())
    /// Anything else.
    public static let other = Class(rawValue: cmpi_err_other())
  }

  public var errorClass: Class
  /// MPI's own words.
  public var text: String
  /// The MPI call that failed, for example `MPI_Send`.
  public var call: String
  /// The calling rank in its communicator; `nil` outside any.
  public var rank: Int?

  public init(_ errorClass: Class, call: StaticString, rank: Int? = nil, _ text: String) {
    self.errorClass = errorClass
    self.text = text
    self.call = call.description
    self.rank = rank
  }

  /// The error behind a code that `call` returned.
  init(code: Int32, call: StaticString, rank: Int?) {
    let text = words(capacity: cmpi_max_error_string()) { cmpi_error_string(code, $0, $1) }
    self.init(Class(rawValue: cmpi_error_class(code)), call: call, rank: rank, text ?? "error code \(code)")
  }
}

extension MPIError: CustomStringConvertible {
  public var description: String {
    let place = rank.map { "rank \($0): " } ?? ""
    return "\(place)\(call): \(text)"
  }
}

/// Throws unless `code` is MPI_SUCCESS. Every MPI call that can fail goes through here.
@inline(__always)
func check(_ call: StaticString, rank: Int? = nil, _ code: Int32) throws(MPIError) {
  if code != cmpi_success() { throw MPIError(code: code, call: call, rank: rank) }
}

/// `value` as MPI wants its counts, offsets, ranks and tags.
/// - Throws: ``MPIError/Class/count`` if it does not fit 32 bits.
@inline(__always)
func int32(_ value: Int, _ call: StaticString, rank: Int? = nil) throws(MPIError) -> Int32 {
  guard let narrow = Int32(exactly: value) else {
    throw MPIError(
      .count, call: call, rank: rank, "\(value) does not fit the 32 bits of an MPI count; send less at a time")
  }
  return narrow
}

/// Text that an MPI call writes into a buffer of `capacity` bytes; `nil` if the call fails.
func words(
  capacity: Int32, _ call: (UnsafeMutablePointer<CChar>, UnsafeMutablePointer<Int32>) -> Int32
) -> String? {
  withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(capacity) + 1) { buffer in
    buffer.initialize(repeating: 0)
    var length: Int32 = 0
    guard let base = buffer.baseAddress, call(base, &length) == cmpi_success() else { return nil }
    return String(cString: base)
  }
}
