/// How the elements of rows lie in the caller's memory. Sums are taken in floats either way.
public enum RowType: String, Hashable, Sendable, CaseIterable {
  /// Floats.
  case fp32
  /// bfloat16: the upper halves of floats. What is stored is rounded to nearest, ties to even.
  case bf16

  /// Bytes of an element.
  @inlinable
  package var bytes: Int { isFloat ? 4 : 2 }

  /// Where every row asks: a comparison would be a call.
  @inlinable
  package var isFloat: Bool {
    switch self {
    case .fp32: true
    case .bf16: false
    }
  }
}
