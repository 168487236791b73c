import CrosspointCore
import CrosspointTokens

/// The clusters of one expert, averaged member by member.
extension TokenClusterer {
  /// What is known of a cluster beside its row.
  struct Tally: BitwiseCopyable {
    var members: Int32
    /// Σ‖x‖².
    var energy: Double
  }

  /// Adds a member's row to the expert's `cluster`, which is either known or the next one.
  ///
  /// - Parameter first: the expert's first row among the centroids.
  func add(
    _ row: UnsafePointer<Float>, to cluster: Int, first: Int, of centroids: inout Centroids
  ) throws(CrosspointError) {
    let tally = tallies.base + cluster
    if first + cluster == centroids.count {
      tally.pointee = Tally(members: 1, energy: energy(try centroids.append(row), of: row))
    } else {
      tally.pointee.members += 1
      let sum = kernels.accumulate(centroids.base + (first + cluster) * hidden, row, hidden)
      tally.pointee.energy += energy(sum, of: row)
    }
  }

  /// Turns the expert's sums into means; returns how many there are.
  func divide(first: Int, of centroids: inout Centroids) -> Int {
    let clusters = centroids.count - first
    for cluster in 0..<clusters {
      let tally = tallies.base[cluster]
      centroids.tokenSquared += tally.energy
      guard tally.members > 1 else { continue }
      let mean = centroids.base + (first + cluster) * hidden
      kernels.scale(mean, 1 / Float(tally.members), mean, hidden)
      let kept = Double(tally.members) * energy(of: mean)
      // In this order NaN stays what it is.
      centroids.residualSquared += max(tally.energy - kept, 0)
    }
    return clusters
  }

  /// ‖row‖².
  func energy(of row: UnsafePointer<Float>) -> Double { energy(kernels.dot(row, row, hidden), of: row) }

  /// ‖row‖² of its sum in floats, whose range a huge row's leaves.
  private func energy(_ sum: Float, of row: UnsafePointer<Float>) -> Double {
    sum.isFinite ? Double(sum) : kernels.squares(row, hidden)
  }
}
