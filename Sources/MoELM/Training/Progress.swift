import Crosspoint
import CrosspointCore

/// What the exchanges of all ranks and layers moved in training; evaluations are not counted.
package struct Traffic: Codable, Sendable, Equatable {
  /// Bytes that left a rank.
  package var wireBytes = 0.0
  /// What the rows that were routed would have taken as fp32, as wide as the model.
  package var routedBytes = 0.0
  /// Rows on the wire: what stood for those routed.
  package var rowsSent = 0.0
  /// Pairs of a row and an expert that travelled after all stages.
  package var rowsRouted = 0.0
  /// Pairs of a token and an expert that would have travelled without any stage.
  package var rowsOffered = 0.0
  package var residualSquared = 0.0
  package var tokenSquared = 0.0

  package init() {}

  /// Adds what an exchange moved.
  mutating func add(_ statistics: LayerStatistics) {
    wireBytes += Double(statistics.wireBytes)
    routedBytes += Double(statistics.uncompressedBytes)
    rowsSent += Double(statistics.rowsSent)
    rowsRouted += Double(statistics.rowsRouted)
    residualSquared += statistics.residualSquared
    tokenSquared += statistics.tokenSquared
  }

  /// What the same tokens would have taken as fp32 without any stage. Where stages dropped everything nobody routed it:
  /// then what the announcements took is all there is to compare with.
  package var uncompressedBytes: Double {
    rowsRouted == 0 ? (rowsOffered == 0 ? routedBytes : wireBytes) : routedBytes * rowsOffered / rowsRouted
  }
  /// Rows sent per pair of token and expert; 1 where there was none.
  package var rowsSentFraction: Double { rowsOffered == 0 ? 1 : rowsSent / rowsOffered }
  /// Bytes sent per byte of fp32 without stages; 1 where nothing would leave its rank.
  package var wireFraction: Double { uncompressedBytes == 0 ? 1 : wireBytes / uncompressedBytes }
  /// Share of the tokens' energy that stayed home.
  package var residualEnergy: Double { tokenSquared == 0 ? 0 : residualSquared / tokenSquared }

  mutating func forEachNumber(_ body: (inout Double) -> Void) {
    body(&wireBytes)
    body(&routedBytes)
    body(&rowsSent)
    body(&rowsRouted)
    body(&rowsOffered)
    body(&residualSquared)
    body(&tokenSquared)
  }
}

/// What exchanges and stages of all ranks and layers did in training; evaluations are not counted.
package struct Movement: Codable, Sendable, Equatable {
  package var traffic = Traffic()
  /// Of every stage, over all layers; empty before anything was counted.
  package var stages: [StageCount] = []
  /// Seconds in stages, summed over ranks, waiting not included.
  package var stageSeconds = 0.0
  /// How alike the granularities of each layer choose.
  package var overlaps: [Overlap] = []

  /// The movement of another step; one of the two may be empty.
  static func + (a: Movement, b: Movement) -> Movement {
    if a.isEmpty || b.isEmpty { return a.isEmpty ? b : a }
    var sum = a
    sum.add(b.values)
    return sum
  }

  static func - (a: Movement, b: Movement) -> Movement { a + b.with(b.values.map { -$0 }) }

  /// Adds what a stage of a layer let through.
  mutating func add(_ count: StageCount, at place: Int) {
    if place < stages.count { stages[place] += count } else { stages.append(count) }
  }

  /// Adds to every number, in the order of ``values``.
  mutating func add(_ numbers: some Sequence<Double>) {
    var rest = numbers.makeIterator()
    forEachNumber { $0 += rest.next()! }
  }

  /// The same stages and layers with other numbers, in the order of ``values``.
  func with(_ numbers: some Sequence<Double>) -> Movement {
    var (moved, rest) = (self, numbers.makeIterator())
    moved.forEachNumber { $0 = rest.next()! }
    return moved
  }

  /// As numbers, for a sum over ranks.
  var values: [Double] {
    var (moved, all) = (self, [Double]())
    moved.forEachNumber { all.append($0) }
    return all
  }

  /// Calls `body` with every number, in an order that depends on stages and layers alone.
  mutating func forEachNumber(_ body: (inout Double) -> Void) {
    traffic.forEachNumber(body)
    body(&stageSeconds)
    for place in stages.indices { stages[place].forEachNumber(body) }
    for place in overlaps.indices { overlaps[place].forEachNumber(body) }
  }

  /// Becomes a copy of another, in the memory that it has.
  mutating func hold(_ other: Movement) {
    (traffic, stageSeconds) = (other.traffic, other.stageSeconds)
    stages.refill(with: other.stages)
    overlaps.refill(with: other.overlaps)
  }

  /// Takes the memory that a copy of another needs.
  mutating func reserve(for other: Movement) {
    stages.reserveCapacity(other.stages.count)
    overlaps.reserveCapacity(other.overlaps.count)
  }

  /// Forgets everything and keeps the memory.
  mutating func clear() {
    (traffic, stageSeconds) = (Traffic(), 0)
    stages.removeAll(keepingCapacity: true)
    overlaps.removeAll(keepingCapacity: true)
  }

  /// Whether nothing was ever counted.
  var isEmpty: Bool { self == Movement() }
}

/// How far a run has come; part of a checkpoint.
package struct Progress: Codable, Sendable, Equatable {
  package var step = 0
  /// Since the first step.
  package var moved = Movement()
  /// As it was when the last quarter of the steps began.
  package var beforeLastQuarter = Movement()
  /// Seconds spent in training steps.
  package var seconds = 0.0
}
