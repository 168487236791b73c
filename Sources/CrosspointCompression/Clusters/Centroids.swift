import CrosspointCore
import CrosspointTokens

/// The mean rows of clusters, one behind the other, and what averaging leaves out.
///
/// How many clusters there are shows only when all members are hashed, and they are averaged meanwhile: rows are added as
/// clusters are found, in memory that doubles where it does not suffice, up to that for the most there can be.
package struct Centroids: ~Copyable {
  /// How many there are.
  package private(set) var count = 0
  /// Σ‖x‖² over all members.
  package internal(set) var tokenSquared = 0.0
  /// Σ‖x − c‖² over all members, from Σ‖x‖² − n‖c‖² of each cluster: exact to the rounding of Σ‖x‖², and 0 for lone members.
  package internal(set) var residualSquared = 0.0
  private var rows: TokenBatch
  private let most: Int
  private let pool: BufferPool

  /// - Parameters:
  ///   - capacity: rows that there is memory for at first.
  ///   - most: members that there will be; more clusters there cannot be.
  /// - Throws: `outOfMemory`.
  package init(hidden: Int, capacity: Int = 0, most: Int, pool: BufferPool) throws(CrosspointError) {
    rows = try TokenBatch(uninitializedRows: min(capacity, most), hidden: hidden, pool: pool)
    self.most = most
    self.pool = pool
  }

  /// Address of the first row; others follow. Valid until a row is added.
  package var base: UnsafeMutablePointer<Float> { rows.base }

  /// Appends a row; returns its squares' sum.
  mutating func append(_ row: UnsafePointer<Float>) throws(CrosspointError) -> Float {
    let hidden = rows.hidden
    if count == rows.rows {
      precondition(count < most, "more clusters than the \(most) members that there were to be")
      let larger = try TokenBatch(uninitializedRows: min(max(64, 2 * count), most), hidden: hidden, pool: pool)
      larger.base.update(from: base, count: count * hidden)
      rows = larger
    }
    count += 1
    return kernels.centre(base + (count - 1) * hidden, row, nil, hidden)
  }

  /// Forgets them all; the memory stays.
  package mutating func removeAll() {
    count = 0
    (tokenSquared, residualSquared) = (0, 0)
  }

  /// Their memory: ``count`` rows and the unused memory behind them.
  package consuming func takeRows() -> TokenBatch { rows }
}
