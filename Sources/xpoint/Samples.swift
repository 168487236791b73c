/// Times or ratios of repeated runs, sorted.
struct Samples {
  private let sorted: [Double]

  /// - Parameter values: at least one.
  init(_ values: [Double]) {
    precondition(!values.isEmpty, "no samples")
    sorted = values.sorted()
  }

  /// What one thing took over what another took, run by run.
  init(ratiosOf first: [Double], over second: [Double]) { self.init(zip(first, second).map { $0 / $1 }) }

  var minimum: Double { sorted[0] }
  var maximum: Double { sorted[sorted.count - 1] }
  var median: Double { percentile(50) }

  /// Nearest rank: the smallest sample that at least `percent` of all samples do not exceed.
  func percentile(_ percent: Double) -> Double {
    let rank = (percent / 100 * Double(sorted.count)).rounded(.up)
    return sorted[min(max(Int(rank), 1), sorted.count) - 1]
  }
}
