/// How the elements of rows lie in the caller's memory. Sums are taken in floats either way.
public enum RowType: String, Hashable, Sendable, CaseIterable {
  /// Floats.
  case fp32
  /// bfloat16: the upper halves of floats. What is stored is rounded to nearest, ties to even.
  case bf16

  /// Bytes of an element.
  package var bytes: Int { self == .fp32 ? 4 : 2 }
}
