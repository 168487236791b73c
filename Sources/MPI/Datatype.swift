internal import CMPI

/// An element that MPI can carry: fixed-width integers and floating-point numbers.
public protocol Datatype: BitwiseCopyable {
  static var datatype: DatatypeHandle { get }
}

/// The MPI datatype behind a Swift type.
public struct DatatypeHandle {
  let raw: cmpi_datatype
}

extension Float: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_float()) } }
extension Double: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_double()) } }
extension Int8: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_int8()) } }
extension Int16: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_int16()) } }
extension Int32: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_int32()) } }
extension Int64: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_int64()) } }
extension UInt8: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_uint8()) } }
extension UInt16: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_uint16()) } }
extension UInt32: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_uint32()) } }
extension UInt64: Datatype { public static var datatype: DatatypeHandle { .init(raw: cmpi_uint64()) } }

/// How an allreduce joins the values of all ranks.
public struct Reduction {
  let raw: cmpi_op

  public static var sum: Reduction { .init(raw: cmpi_sum()) }
  public static var product: Reduction { .init(raw: cmpi_product()) }
  public static var minimum: Reduction { .init(raw: cmpi_minimum()) }
  public static var maximum: Reduction { .init(raw: cmpi_maximum()) }
  /// Integers only.
  public static var bitwiseAnd: Reduction { .init(raw: cmpi_bitwise_and()) }
  /// Integers only.
  public static var bitwiseOr: Reduction { .init(raw: cmpi_bitwise_or()) }
}
