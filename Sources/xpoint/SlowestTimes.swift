/// Runs those that are compared, in the opposite order in every other iteration: whoever comes later finds links that were idle at
/// the end of the one before.
/// - Returns: what they give, in their own order.
func inTurns<Way, Result>(_ iteration: Int, _ ways: [Way], _ run: (Way) throws -> Result) rethrows -> [Result] {
  if iteration.isMultiple(of: 2) { return try ways.map(run) }
  return try ways.reversed().map(run).reversed()
}

/// The times of repeated collective runs: the slowest rank decides each.
struct SlowestTimes {
  /// By iteration.
  private(set) var seconds: [Double] = []
  /// The rank that was last most often; the first of equals.
  let rank: Int

  /// - Parameter everyones: seconds by rank and iteration.
  init(_ everyones: [ArraySlice<Double>]) {
    var timesSlowest = [Int](repeating: 0, count: everyones.count)
    for index in everyones[0].indices {
      var last = 0
      for rank in everyones.indices where everyones[rank][index] > everyones[last][index] { last = rank }
      timesSlowest[last] += 1
      seconds.append(everyones[last][index])
    }
    rank = timesSlowest.firstIndex(of: timesSlowest.max()!)!
  }
}
