/// How large counts may be: far beyond what there is, and small enough that products of two are numbers.
package enum Extent {
  /// Experts over all ranks.
  package static let experts = 1...1 << 20
  /// Floats of a row.
  package static let hidden = 1...1 << 24

  /// - Throws: `invalidArgument` with the value and the range, where the one is not in the other.
  package static func require(
    _ value: Int, in range: ClosedRange<Int>, operation: String, argument: String
  ) throws(CrosspointError) {
    guard range.contains(value) else {
      throw CrosspointError(
        .invalidArgument, operation: operation, argument: argument,
        "\(value); \(range.lowerBound) to \(range.upperBound) is possible")
    }
  }

  /// The product of counts that are not negative.
  /// - Throws: `invalidArgument` where it is more than `most`.
  package static func product(
    _ counts: Int..., most: Int = .max, operation: String, argument: String
  ) throws(CrosspointError) -> Int {
    var product = 1
    for count in counts {
      let (next, overflow) = product.multipliedReportingOverflow(by: count)
      guard !overflow, next <= most else {
        throw CrosspointError(
          .invalidArgument, operation: operation, argument: argument,
          "\(counts.map { "\($0)" }.joined(separator: " × ")); at most \(most) is possible")
      }
      product = next
    }
    return product
  }
}
