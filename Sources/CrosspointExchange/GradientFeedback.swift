import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// Error feedback for the gradient transfers: what coding took from a group's rows is given back to its next rows.
///
/// A token's row has no successor in the next step, but its group (one rank's rows for one expert) has: the same expert
/// learns from it. So the error is kept per group, as the SUM e over its rows. The next step's n rows x_j travel as
/// `x_j + e / n`, and `e ← e + Σ x_j − Σ decoded_j`. Over time
///
///     Σ_steps Σ_rows decoded = Σ_steps Σ_rows x − e
///
/// What is added to a row is no longer than the group's rows are on average (root mean square); the rest of e waits. An e
/// that is not finite is forgotten. Groups without rows keep theirs. Lossless formats leave nothing to give back.
///
/// Source: error feedback is from Seide et al., "1-Bit Stochastic Gradient Descent" (Interspeech 2014), there per
/// parameter; per group it is ours.
public final class GradientFeedback {
  /// Peers times groups of each; a group's errors are `hidden` floats.
  private let groups: Int
  private let groupsPerPeer: Int
  private let hidden: Int
  private let pool: BufferPool
  /// `[2 transfers × groups × hidden]` twice: what is, and what will be once every rank has agreed on the transfer.
  private let memory: BufferPool.Buffer

  init(peers: Int, groupsPerPeer: Int, hidden: Int, pool: BufferPool) throws(CrosspointError) {
    groups = peers * groupsPerPeer
    self.groupsPerPeer = groupsPerPeer
    self.hidden = hidden
    self.pool = pool
    memory = try pool.lease(bytes: 2 * 2 * groups * hidden * MemoryLayout<Float>.stride)
    reset()
  }

  deinit { pool.release(memory) }

  /// The errors of both gradient transfers, `[2 × peers × groups × hidden]`: what a checkpoint must hold for training to
  /// go on bit for bit. This rank's; meaningful for the same layout on the same number of ranks. Empty without memory.
  public var errors: UnsafeMutableBufferPointer<Float> { half(0) }

  /// Forgets all errors: for a new start with other parameters or data.
  public func reset() {
    half(0).update(repeating: 0)
    half(1).update(repeating: 0)
  }

  private func half(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
    let count = 2 * groups * hidden
    let start = memory.base.assumingMemoryBound(to: Float.self) + index * count
    return UnsafeMutableBufferPointer(start: start, count: count)
  }

  /// Where the errors of a transfer begin within a half.
  private func start(_ kind: LayerStatistics.TransferKind) -> Int { kind == .combineBackward ? 0 : groups * hidden }

  /// Before a transfer: what will be is what is.
  func begin(_ kind: LayerStatistics.TransferKind) {
    let range = start(kind)..<start(kind) + groups * hidden
    _ = UnsafeMutableBufferPointer(rebasing: half(1)[range]).update(from: half(0)[range])
  }

  /// After a transfer on which every rank agreed.
  func commit(_ kind: LayerStatistics.TransferKind) {
    let range = start(kind)..<start(kind) + groups * hidden
    _ = UnsafeMutableBufferPointer(rebasing: half(0)[range]).update(from: half(1)[range])
  }

  /// A peer's groups of rows with their errors added: what is to be encoded.
  private(set) var corrected: [RowSource] = []
  /// Where the frame made of them is to be decoded.
  private(set) var decoded: [RowTarget] = []

  /// Fills ``corrected`` and ``decoded``, whose memory the caller gives back.
  func correct(
    _ kind: LayerStatistics.TransferKind, peer: Int, _ sources: [RowSource]
  ) throws(CrosspointError) -> BufferPool.Buffer {
    let floats = sources.rowCount * hidden
    let rows = try pool.lease(bytes: 2 * floats * MemoryLayout<Float>.stride)
    let base = rows.base.assumingMemoryBound(to: Float.self)
    corrected.removeAll(keepingCapacity: true)
    decoded.removeAll(keepingCapacity: true)
    var offset = 0
    for (group, source) in sources.enumerated() {
      correct(source, by: error(kind, peer, group), into: base + offset)
      corrected.append(RowSource(base: base + offset, rows: source.rows))
      decoded.append(RowTarget(base: base + floats + offset, rows: source.rows))
      offset += source.rows * hidden
    }
    return rows
  }

  /// Takes note of what coding took from ``corrected``, now that it is decoded.
  func absorb(_ kind: LayerStatistics.TransferKind, peer: Int) {
    for (group, sent) in corrected.enumerated() where sent.rows > 0 {
      let error = error(kind, peer, group)
      let arrived = decoded[group].base
      for row in 0..<sent.rows {
        kernels.axpy_difference(error, 1, sent.base + row * hidden, arrived + row * hidden, hidden)
      }
      if kernels.first_nonfinite(error, hidden) < hidden { error.update(repeating: 0, count: hidden) }
    }
  }

  /// The error to be of one group.
  private func error(_ kind: LayerStatistics.TransferKind, _ peer: Int, _ group: Int) -> UnsafeMutablePointer<Float> {
    half(1).baseAddress! + start(kind) + (peer * groupsPerPeer + group) * hidden
  }

  /// Copies a group's rows with a share of its error added to each, and takes the shares off the error.
  private func correct(
    _ source: RowSource, by error: UnsafeMutablePointer<Float>, into rows: UnsafeMutablePointer<Float>
  ) {
    guard source.rows > 0 else { return }
    var energy: Float = 0
    for index in 0..<source.rows {
      let row = source.row(index, hidden: hidden)
      (rows + index * hidden).update(from: row, count: hidden)
      energy += kernels.dot(row, row, hidden)
    }
    let count = Float(source.rows)
    let length = kernels.dot(error, error, hidden).squareRoot()
    let longest = (energy / count).squareRoot() * count
    guard length > 0, longest.isFinite, longest > 0 else { return }
    let part = min(1, longest / length)
    for index in 0..<source.rows { kernels.axpy(rows + index * hidden, part / count, error, hidden) }
    kernels.scale(error, 1 - part, error, hidden)
  }
}
