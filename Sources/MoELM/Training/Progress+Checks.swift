extension Progress {
  /// What of it cannot be; `nil` where all is well.
  var defect: String? {
    if !(0...Checkpoint.countLimit).contains(step) { return "its step is \(step)" }
    for value in [seconds] + moved.values + beforeLastQuarter.values where !(value >= 0 && value.isFinite) {
      return "it counts \(value)"
    }
    return nil
  }
}

extension Movement {
  /// Whether it counts the same stages and layers as another, or nothing at all.
  func counts(sameAs other: Movement) -> Bool {
    func layers(_ moved: Movement) -> [[Int]] { moved.overlaps.map { [$0.block, $0.granularity] } }
    return isEmpty || (stages.map(\.name) == other.stages.map(\.name) && layers(self) == layers(other))
  }
}
