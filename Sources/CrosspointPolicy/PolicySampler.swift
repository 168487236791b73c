import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointTokens

/// Tries every code and cluster rate of the ``PolicyMenu`` on a few of the very rows that a transfer is about to send.
///
/// The rows are chosen by their number and the sample's alone, so that every run sees the same.
final class PolicySampler {
  /// Runs of rows that a sample reads, spread over the rows of a frame, and rows of each.
  private static let runs = 4
  private static let rowsOfRun = 64
  /// Fraction of the golden ratio: successive samples fall between one another.
  private static let shift = 0.618_033_988_749_894_8

  private let codec: RowCodec
  private let pool: BufferPool
  private let hidden: Int
  /// What links and codes take, where time decides: codes that cannot gain are not tried, nor are clusters.
  var speed: PolicySpeed?
  // Scratch that keeps its capacity from sample to sample.
  private var groups: [RowSource] = []
  /// Where each frame's groups begin.
  private var frames: [Int] = []
  /// Of each group of the sample, how many of its rows are in it.
  private var taken: [(group: RowSource, rows: Int)] = []
  private var sources: [RowSource] = []
  private var oneRow: [RowSource] = []
  private var targets: [RowTarget] = []
  private var memory: RowMemory?

  init(codec: RowCodec, pool: BufferPool) {
    self.codec = codec
    self.pool = pool
    hidden = codec.hidden
  }

  /// Estimates for all rows that go to other ranks from a sample of them.
  ///
  /// - Parameters:
  ///   - rank: this one, whose own rows do not travel.
  ///   - number: the sample's.
  func measure(
    _ transfer: PendingTransfer, except rank: Int, number: Int, into result: inout PolicyMeasurement
  ) throws(CrosspointError) {
    groups.removeAll(keepingCapacity: true)
    frames.removeAll(keepingCapacity: true)
    for peer in transfer.sources.indices where peer != rank {
      frames.append(groups.count)
      groups += transfer.sources[peer]
    }
    let rounding = transfer.rounding
    memory = transfer.memory
    result.rows = Double(groups.rowCount)
    guard result.rows > 0 else { return }
    chooseRows(number)
    let rows = taken.reduce(0) { $0 + $1.rows }
    let tokens = try copySample(rows)
    let scale = result.rows / Double(rows)
    for row in 0..<rows { result.energy += scale * kernels.squares(tokens.base + row * hidden, hidden) }

    let labels = try copyLabels(rows)
    defer { pool.release(labels) }
    sources.removeAll(keepingCapacity: true)
    var (next, label) = (UnsafePointer(tokens.base), UnsafePointer(labels.base.assumingMemoryBound(to: Int32.self)))
    for (_, count) in taken {
      sources.append(RowSource(base: next, rows: count, labels: label))
      (next, label) = (next + count * hidden, label + count)
    }
    result.kept[0] = result.rows
    try tryCodes(0, of: rows, weights: nil, rounding, into: &result)

    guard speed == nil, let clusterer = transfer.clusterer else { return }
    let words = try pool.lease(bytes: 3 * 4 * rows)
    defer { pool.release(words) }
    let indices = words.base.assumingMemoryBound(to: Int32.self)
    var centroids = try Centroids(hidden: hidden, capacity: rows, most: rows, pool: pool)
    for (clustering, rate) in PolicyMenu.rates.enumerated() {
      clusterer.limit(rate: rate)
      centroids.removeAll()
      try cluster(tokens, clusterer, into: &centroids, indices)
      // Beyond the range of a float distances say nothing: no clusters then.
      guard centroids.residualSquared.isFinite else { continue }
      result.residuals[clustering + 1] = scale * centroids.residualSquared
      result.kept[clustering + 1] = scale * Double(sources.rowCount)
      try tryCodes(clustering + 1, of: rows, weights: indices + 2 * rows, rounding, into: &result)
    }
  }

  /// Seconds that a core takes to encode and decode a byte of fp32 in each format, at best of some, on rows of noise.
  func timeCodes(_ formats: [WireFormat]) throws(CrosspointError) -> [Double] {
    let rows = Self.runs * Self.rowsOfRun
    let batch = try TokenBatch(uninitializedRows: rows, hidden: hidden, pool: pool)
    var generator = SplitMix64(seed: 0)
    for index in batch.elements.indices { batch.elements[index] = generator.nextUnit() - 0.5 }
    sources = [RowSource(base: batch.base, rows: rows)]
    var seconds: [Double] = []
    for format in formats {
      var least = Double.infinity
      for _ in 0..<3 {
        let start = threadSeconds()
        _ = try encodeAndDecode(sources, format, .nearest) {}
        least = min(least, threadSeconds() - start)
      }
      seconds.append(least / Double(4 * hidden * rows))
    }
    return seconds
  }

  // MARK: - The sample

  /// The groups of one peer, a peer as often as it gets rows: what a frame costs besides its rows, the sample costs too.
  private func chooseFrame(_ offset: Double) -> Range<Int> {
    let wanted = offset * Double(groups.rowCount)
    var before = 0
    for frame in frames.indices {
      before += rows(ofFrame: frame)
      if wanted < Double(before) { return groupsOfFrame(frame) }
    }
    preconditionFailure("no rows to choose from")
  }

  private func groupsOfFrame(_ frame: Int) -> Range<Int> {
    frames[frame]..<(frame + 1 < frames.count ? frames[frame + 1] : groups.count)
  }

  private func rows(ofFrame frame: Int) -> Int { groups[groupsOfFrame(frame)].reduce(0) { $0 + $1.rows } }

  /// Runs at even distances over the rows of a frame, each within one group; everything where there is little.
  private func chooseRows(_ number: Int) {
    let offset = (Double(number) * Self.shift).truncatingRemainder(dividingBy: 1)
    let frame = chooseFrame(offset)
    let all = groups[frame].reduce(0) { $0 + $1.rows }
    let spacing = Double(all) / Double(Self.runs)
    taken.removeAll(keepingCapacity: true)
    var (before, run) = (0, 0)
    for group in groups[frame] where group.rows > 0 {
      before += group.rows
      let firstRun = run
      while run < Self.runs, (Double(run) + offset) * spacing < Double(before) { run += 1 }
      let isLittle = all <= Self.runs * Self.rowsOfRun
      let count = isLittle ? group.rows : min(group.rows, (run - firstRun) * Self.rowsOfRun)
      if count > 0 { taken.append((group, count)) }
    }
  }

  /// Calls `body` with each row of the sample: its group, and its number there.
  private func forEachRow(_ body: (RowSource, Int) -> Void) {
    for (group, count) in taken {
      for number in 0..<count { body(group, number * group.rows / count) }
    }
  }

  private func copyLabels(_ rows: Int) throws(CrosspointError) -> BufferPool.Buffer {
    let buffer = try pool.lease(bytes: 4 * rows)
    var next = buffer.base.assumingMemoryBound(to: Int32.self)
    forEachRow { group, number in
      next.pointee = group.label(number)
      next += 1
    }
    return buffer
  }

  private func copySample(_ rows: Int) throws(CrosspointError) -> TokenBatch {
    let batch = try TokenBatch(uninitializedRows: rows, hidden: hidden, pool: pool)
    var next = batch.base
    forEachRow { group, number in
      next.update(from: group.row(number, hidden: hidden).floats, count: hidden)
      next += hidden
    }
    return batch
  }

  /// Clusters the groups of the sample; ``sources`` become their centroids.
  ///
  /// Fewer rows of a group leave more of them: this errs on the safe side.
  /// - Parameters:
  ///   - centroids: none so far, but space for all rows.
  ///   - indices: three for each row; the last third receives the sizes of the clusters.
  private func cluster(
    _ tokens: borrowing TokenBatch, _ clusterer: TokenClusterer, into centroids: inout Centroids,
    _ indices: UnsafeMutablePointer<Int32>
  ) throws(CrosspointError) {
    let rows = tokens.rows
    let (members, clusterOf, sizes) = (indices, indices + rows, indices + 2 * rows)
    for row in 0..<rows { members[row] = Int32(row) }
    try clusterer.prepare(tokens)
    sources.removeAll(keepingCapacity: true)
    sizes.update(repeating: 0, count: rows)
    var first = 0
    for (_, count) in taken {
      let group = UnsafeBufferPointer(start: UnsafePointer(members + first), count: count)
      let used = centroids.count
      let clusters = try clusterer.cluster(group, clusterOf: clusterOf, into: &centroids)
      for member in 0..<count { sizes[used + Int(clusterOf[member])] += 1 }
      sources.append(RowSource(base: centroids.base + used * hidden, rows: clusters))
      first += count
    }
  }

  // MARK: - Trials

  /// Codes the ``sources`` in every format: errors as the tokens feel them, and bytes of all frames.
  ///
  /// - Parameters:
  ///   - tokens: how many the sources stand for.
  ///   - weights: how many each of their rows stands for; `nil`: one.
  private func tryCodes(
    _ clustering: Int, of tokens: Int, weights: UnsafePointer<Int32>?, _ rounding: RowRounding,
    into result: inout PolicyMeasurement
  ) throws(CrosspointError) {
    let scale = result.rows / Double(tokens)
    let rows = sources.rowCount
    let usedGroups = Double(groups.count { $0.rows > 0 })
    for (index, format) in PolicyMenu.trials.enumerated() {
      guard speed?.canGain(index) ?? true else {
        // As if nothing of it arrived.
        result.errors[clustering][index] = result.energy
        result.bytes[clustering][index] = Double(4 * hidden) * result.rows
        continue
      }
      var error = 0.0
      let trial = try encodeAndDecode(sources, format, rounding) {
        var row = 0
        for (source, target) in zip(sources, targets) {
          for number in 0..<source.rows {
            let difference = kernels.squares(
              source.row(number, hidden: hidden).floats, minus: target.row(number, hidden: hidden).floats, hidden)
            error += Double(weights?[row] ?? 1) * difference
            row += 1
          }
        }
      }
      result.errors[clustering][index] = scale * error
      if index < PolicyMenu.formats.count {
        let means = Double(trial.means) / Double(sources.count) * usedGroups
        result.bytes[clustering][index] = scale * Double(trial.bytes - trial.means) + means
      } else {
        result.bytes[clustering][index] = try entropyBytes(
          format, bytes: Double(trial.bytes), of: Double(rows), kept: Double(rows) / Double(tokens))
      }
    }
  }

  /// Bytes of entropy-coded frames: at least what their rate allows, more where what a frame has once is more than a part of
  /// that, and never less than a frame of one row.
  ///
  /// - Parameters:
  ///   - bytes: those of a frame of `sampled` rows.
  ///   - kept: rows per token.
  private func entropyBytes(_ format: WireFormat, bytes: Double, of sampled: Double, kept: Double)
    throws(CrosspointError) -> Double
  {
    let source = sources.first { $0.rows > 0 }!
    oneRow.refill(with: RowSource(first: source.first, rows: 1, labels: source.labels), count: 1)
    let least = Double(try encodeAndDecode(oneRow, format, .nearest) {}.bytes)
    let nominal = format.rate * Double(hidden) / 8
    let fixed = bytes - sampled * nominal * (1 - WireFormat.entropyFixedPart)
    return frames.indices.reduce(0) { sum, frame in
      let rows = kept * Double(rows(ofFrame: frame))
      let excess = max(0, fixed - rows * nominal * WireFormat.entropyFixedPart)
      return rows == 0 ? sum : sum + max(least, rows * nominal + excess)
    }
  }

  /// Some rows as a frame and back, into ``targets`` while `body` runs; the bytes of its body, and those of mean rows
  /// among them.
  private func encodeAndDecode(
    _ sources: [RowSource], _ format: WireFormat, _ rounding: RowRounding, _ body: () -> Void
  ) throws(CrosspointError) -> (bytes: Int, means: Int) {
    let (groups, rows) = (sources.count, sources.rowCount)
    let headerBytes = RowCodec.headerBytes(groups: groups)
    let most = codec.maximumBodyBytes(format, rows: rows, groups: groups)
    let frame = try pool.lease(bytes: headerBytes + most)
    defer { pool.release(frame) }
    let decoded = try pool.lease(bytes: 4 * hidden * rows)
    defer { pool.release(decoded) }
    let header = UnsafeMutableRawBufferPointer(start: frame.base, count: headerBytes)
    let size = try codec.encode(
      sources, as: format, rounding: rounding, memory: memory, header: header,
      body: UnsafeMutableRawBufferPointer(start: frame.base + headerBytes, count: most))
    targets.removeAll(keepingCapacity: true)
    var next = decoded.base.assumingMemoryBound(to: Float.self)
    for source in sources {
      targets.append(RowTarget(base: next, rows: source.rows, labels: source.labels))
      next += source.rows * hidden
    }
    try codec.decode(
      header: UnsafeRawBufferPointer(header),
      body: UnsafeRawBufferPointer(start: frame.base + headerBytes, count: size), memory: memory, into: targets)
    body()
    return (size, RowCodec.meanBytes(in: UnsafeRawBufferPointer(header), format, groups: groups, hidden: hidden))
  }
}
