/// The first index at which two arrays differ in any bit (NaNs and signed zeros count); `nil` if none does.
public func firstBitDifference(_ a: [Float], _ b: [Float]) -> Int? {
  for index in 0..<min(a.count, b.count) where a[index].bitPattern != b[index].bitPattern { return index }
  return a.count == b.count ? nil : min(a.count, b.count)
}

/// `|a − b| / |b|` in the Euclidean norm; `|a|` where b is zero.
public func relativeError(
  _ a: some Collection<some BinaryFloatingPoint>, _ b: some Collection<some BinaryFloatingPoint>
) -> Double {
  precondition(a.count == b.count, "\(a.count) and \(b.count) values")
  var (difference, norm) = (0.0, 0.0)
  for (a, b) in zip(a, b) {
    difference += (Double(a) - Double(b)) * (Double(a) - Double(b))
    norm += Double(b) * Double(b)
  }
  return norm == 0 ? difference.squareRoot() : (difference / norm).squareRoot()
}
