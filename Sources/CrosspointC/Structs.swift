public import CCrosspoint
import CrosspointCore

/// A struct of C that says which one it is.
protocol Versioned {
  init()
  var size: UInt32 { get set }
  var version: UInt32 { get set }
  /// Bytes that it had when its version began; what has been added since is zero in programs of that time.
  static var leastSize: Int { get }
}

extension Versioned {
  static var leastSize: Int { MemoryLayout<Self>.size }

  /// Zeros, but for what it is: CROSSPOINT_INIT.
  static var ofThisVersion: Self {
    var value = Self()
    (value.size, value.version) = (UInt32(MemoryLayout<Self>.size), UInt32(CROSSPOINT_INTERFACE))
    return value
  }
}

extension crosspoint_error: Versioned {}
extension crosspoint_fabric_options: Versioned {}
extension crosspoint_rows: Versioned {}
extension crosspoint_routing: Versioned {
  static var leastSize: Int { MemoryLayout<Self>.offset(of: \.labels)! }
}
extension crosspoint_statistics: Versioned {}

func isOfThisVersion<Struct: Versioned>(_ value: Struct) -> Bool {
  value.version == UInt32(CROSSPOINT_INTERFACE) && value.size == UInt32(MemoryLayout<Struct>.size)
}

/// What a pointer to a struct of C points to; zeros for what the struct of an earlier program has not.
/// - Throws: `invalidArgument` for NULL, and for a struct of another version or size.
func read<Struct: Versioned>(
  _ pointer: UnsafePointer<Struct>?, _ operation: String, _ argument: String
) throws(CrosspointError) -> Struct {
  guard let pointer else { throw invalid(operation, argument, "it is NULL") }
  let bytes = UnsafeRawPointer(pointer)
  // No more is there for certain.
  let (size, version) = (bytes.load(as: UInt32.self), bytes.load(fromByteOffset: 4, as: UInt32.self))
  guard version == UInt32(CROSSPOINT_INTERFACE), [Struct.leastSize, MemoryLayout<Struct>.size].contains(Int(size))
  else {
    throw invalid(
      operation, argument,
      "a struct of version \(version) and \(size) bytes; version \(CROSSPOINT_INTERFACE) with "
        + "\(MemoryLayout<Struct>.size) is expected: set both, see CROSSPOINT_INIT")
  }
  var value = Struct()
  withUnsafeMutableBytes(of: &value) { $0.copyMemory(from: UnsafeRawBufferPointer(start: bytes, count: Int(size))) }
  return value
}

/// Where C wants something.
/// - Throws: `invalidArgument` for NULL.
func place<Value>(
  _ pointer: UnsafeMutablePointer<Value>?, _ operation: String, _ argument: String
) throws(CrosspointError) -> UnsafeMutablePointer<Value> {
  guard let pointer else { throw invalid(operation, argument, "it is NULL") }
  return pointer
}

/// The same for a struct, which must say what it is.
func place<Struct: Versioned>(
  struct pointer: UnsafeMutablePointer<Struct>?, _ operation: String, _ argument: String
) throws(CrosspointError) -> UnsafeMutablePointer<Struct> {
  _ = try read(UnsafePointer(pointer), operation, argument)
  return pointer!
}

/// The object that an opaque pointer of C stands for.
/// - Throws: `invalidArgument` for NULL.
func object<Object: AnyObject>(
  _ pointer: OpaquePointer?, _ operation: String, _ argument: String
) throws(CrosspointError) -> Object {
  guard let pointer else { throw invalid(operation, argument, "it is NULL") }
  return Unmanaged<Object>.fromOpaque(UnsafeRawPointer(pointer)).takeUnretainedValue()
}

/// An object as C holds it, until ``takeBack(_:as:)``.
func handOut(_ object: AnyObject) -> OpaquePointer { OpaquePointer(Unmanaged.passRetained(object).toOpaque()) }

/// Takes back what ``handOut(_:)`` gave; NULL is nothing.
func takeBack<Object: AnyObject>(_ pointer: OpaquePointer?, as type: Object.Type) {
  if let pointer { Unmanaged<Object>.fromOpaque(UnsafeRawPointer(pointer)).release() }
}
