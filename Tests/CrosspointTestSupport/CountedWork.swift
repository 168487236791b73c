/// Work of so many slices that writes down which were done.
public struct CountedWork {
  public let slices: Int
  /// The slices that were done, in the order in which they were.
  public private(set) var done: [Int] = []
  /// Whether it was asked again after it had said that nothing is left, and nothing had arrived since.
  public private(set) var wasAskedTooOften = false
  private var isOver = false

  public init(slices: Int) { self.slices = slices }

  /// Something has arrived: it may be asked once more.
  public mutating func arrive() { isOver = false }

  /// Does the next slice and says whether any is left.
  public mutating func next() -> Bool {
    if isOver { wasAskedTooOften = true }
    if done.count < slices { done.append(done.count) }
    isOver = done.count == slices
    return !isOver
  }

  /// Whether all slices were done, and nothing was asked for beyond.
  public var isComplete: Bool { done.count == slices && !wasAskedTooOften }
}
