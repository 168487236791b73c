import CrosspointCore
import CrosspointTokens

/// Which values an encoder takes.
package enum AdmittedValues: Sendable {
  /// All, without a look at them.
  case any
  /// NaN, infinity, and what is within the format's ``WireFormat/bound``.
  case bounded
  /// Finite values within the bound.
  case finite

  /// The place of the first value that is not admitted in a format of this bound.
  package func firstRefused(_ values: RowPointer, _ count: Int, bound: Float) -> Int? {
    if self == .any { return nil }
    if bound == .greatestFiniteMagnitude {
      // Only what is not finite is beyond it.
      guard self == .finite else { return nil }
      let index =
        values.type.isFloat
        ? kernels.first_nonfinite(values.floats, count) : kernels.bf16_first_nonfinite(values.base, count)
      return index < count ? index : nil
    }
    if values.type.isFloat, kernels.largest_magnitude(values.floats, count) <= bound { return nil }
    return (0..<count).first { index in
      let magnitude = values[index].magnitude
      return !(magnitude <= bound) && (self == .finite || magnitude.isFinite)
    }
  }

  /// What is wrong with a value that is not admitted.
  package static func complaint(_ value: Float, _ format: WireFormat) -> String {
    value.isFinite ? "\(value); \(format) carries magnitudes up to \(format.bound)" : "\(value)"
  }
}

extension AdmittedValues {
  /// Throws `nonFinite` if a row holds a value that is not admitted.
  @inline(__always)
  package func check(
    _ row: RowPointer, _ hidden: Int, bound: Float, _ format: @autoclosure () -> WireFormat
  ) throws(CrosspointError) {
    guard let column = firstRefused(row, hidden, bound: bound) else { return }
    throw CrosspointError(
      .nonFinite, operation: "encode", argument: "groups",
      "column \(column) of a row is \(Self.complaint(row[column], format()))")
  }
}
