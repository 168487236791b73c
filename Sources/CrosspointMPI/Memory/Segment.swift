/// A range of a rank's ``MemoryFile``, and where it is mapped in this process.
struct Segment: @unchecked Sendable {
  let range: Range<Int>
  let base: UnsafeMutableRawPointer

  /// Where a part of the range lies; `nil` for what is no part of it.
  func find(_ part: Range<Int>) -> UnsafeMutableRawPointer? {
    guard range.lowerBound <= part.lowerBound, part.upperBound <= range.upperBound else { return nil }
    return base + (part.lowerBound - range.lowerBound)
  }
}
