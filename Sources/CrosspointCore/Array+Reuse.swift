/// Arrays that keep their memory from batch to batch.
extension Array {
  /// Holds `count` times the same value.
  @inlinable package mutating func refill(with value: Element, count: Int) {
    removeAll(keepingCapacity: true)
    append(contentsOf: repeatElement(value, count: count))
  }

  /// Holds copies of another's elements.
  @inlinable package mutating func refill(with other: [Element]) {
    removeAll(keepingCapacity: true)
    append(contentsOf: other)
  }
}

extension Array where Element: ExpressibleByIntegerLiteral {
  /// Makes space for `count` elements; new ones are zero.
  @inlinable package mutating func resize(_ count: Int) {
    if self.count > count { removeLast(self.count - count) }
    if self.count < count { append(contentsOf: repeatElement(0, count: count - self.count)) }
  }
}
