extension Array where Element: ExpressibleByIntegerLiteral {
  /// Makes room for `count` elements without giving memory back; new elements are zero.
  mutating func resize(_ count: Int) {
    if self.count > count { removeLast(self.count - count) }
    if self.count < count { append(contentsOf: repeatElement(0, count: count - self.count)) }
  }
}
