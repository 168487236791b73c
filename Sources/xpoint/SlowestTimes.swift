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
