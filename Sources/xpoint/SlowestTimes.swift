/// Runs two that are compared, the second first in every other iteration: whoever comes later finds links that were idle at the
/// end of the other.
/// - Returns: what the first gives, then the second.
func inTurns<Result>(
  _ iteration: Int, _ first: () throws -> Result, _ second: () throws -> Result
) rethrows -> [Result] {
  if iteration % 2 == 0 { return [try first(), try second()] }
  let result = try second()
  return [try first(), result]
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
