// swift-format-ignore-file: AlwaysUseLowerCamelCase
// Names are those of crosspoint.h.

public import CCrosspoint
import CrosspointCore
import Glibc

/// A failure in the form in which C reads it; its texts live as long as it does.
private final class LastError {
  let error: CrosspointError
  /// name, operation, argument, message, and all in one line.
  let texts: [UnsafeMutablePointer<CChar>]

  init(_ error: CrosspointError) {
    self.error = error
    texts = ["\(error.code)", error.operation, error.argument, error.message, "\(error)"].map(textOfC)
  }

  deinit { for text in texts { text.deallocate() } }

  /// Each thread has its own, which ends with the thread.
  private static let key: pthread_key_t = {
    var key = pthread_key_t()
    pthread_key_create(&key) { Unmanaged<LastError>.fromOpaque($0!).release() }
    return key
  }()

  static var ofThread: LastError? {
    get { pthread_getspecific(key).map { Unmanaged<LastError>.fromOpaque($0).takeUnretainedValue() } }
    set {
      if let old = pthread_getspecific(key) { Unmanaged<LastError>.fromOpaque(old).release() }
      pthread_setspecific(key, newValue.map { UnsafeRawPointer(Unmanaged.passRetained($0).toOpaque()) })
    }
  }
}

/// Runs what a function of C does, and keeps its error for the calling thread.
func status(_ body: () throws(CrosspointError) -> Void) -> crosspoint_status {
  do throws(CrosspointError) {
    try body()
    return CROSSPOINT_OK
  } catch {
    LastError.ofThread = LastError(error)
    return crosspoint_status(bitPattern: error.code.rawValue)
  }
}

/// - Throws: the failure that a function of C returned to this thread.
func check(_ status: crosspoint_status) throws(CrosspointError) {
  if status != CROSSPOINT_OK { throw LastError.ofThread!.error }
}

/// An argument of C that cannot be.
func invalid(_ operation: String, _ argument: String, _ message: String) -> CrosspointError {
  CrosspointError(.invalidArgument, operation: operation, argument: argument, message)
}

@c @implementation
public func crosspoint_last_error(_ error: UnsafeMutablePointer<crosspoint_error>?) -> crosspoint_status {
  guard let error, isOfThisVersion(error.pointee) else { return CROSSPOINT_INVALID_ARGUMENT }
  let last = LastError.ofThread
  func text(_ index: Int) -> UnsafePointer<CChar> { UnsafePointer(last?.texts[index] ?? empty) }
  let status = last.map { crosspoint_status(bitPattern: $0.error.code.rawValue) } ?? CROSSPOINT_OK
  error.pointee.status = status
  error.pointee.rank = Int32(last?.error.rank ?? -1)
  error.pointee.is_agreed = last?.error.isAgreed == true ? 1 : 0
  error.pointee.name = last == nil ? ok : text(0)
  error.pointee.operation = text(1)
  error.pointee.argument = text(2)
  error.pointee.message = text(3)
  error.pointee.text = text(4)
  return status
}

@c @implementation
public func crosspoint_status_name(_ status: crosspoint_status) -> UnsafePointer<CChar>? {
  status == CROSSPOINT_OK ? ok : names[status] ?? unknown
}

@c @implementation
public func crosspoint_version() -> UnsafePointer<CChar>? { version }

/// A text as C reads it, until `deallocate()`.
func textOfC(_ text: String) -> UnsafeMutablePointer<CChar> {
  let bytes = text.utf8CString
  let copy = UnsafeMutableBufferPointer<CChar>.allocate(capacity: bytes.count)
  _ = copy.initialize(from: bytes)
  return copy.baseAddress!
}

// Texts for as long as the process.
nonisolated(unsafe) private let empty = textOfC("")
nonisolated(unsafe) private let version = UnsafePointer(textOfC(crosspointVersion))
nonisolated(unsafe) private let ok = UnsafePointer(textOfC("ok"))
nonisolated(unsafe) private let unknown = UnsafePointer(textOfC("unknown"))
nonisolated(unsafe) private let names = Dictionary(
  uniqueKeysWithValues: CrosspointError.Code.names.map {
    (crosspoint_status(bitPattern: $0.code.rawValue), UnsafePointer(textOfC($0.name)))
  })
