import Crosspoint

/// Where the time of training steps goes on this rank. Every moment of a step belongs to one phase, so phases add up to the
/// step; of one phase within another, the time is the inner one's. Between ``start()`` and ``stop()`` only.
final class StepClock {
  /// The transfers first, in the order of ``TransferKind``.
  enum Phase: Int, CaseIterable {
    case dispatch, combine, combineBackward, dispatchBackward
    /// Attention and the norms of a block.
    case attention
    /// The feed-forward that all tokens pass, shared experts included.
    case dense
    case stages, router, experts
    /// Sums over ranks, waiting for them included.
    case allReduce
    /// The embedding and the prediction of bytes.
    case prediction
    case optimiser, other
  }

  /// What a transfer is made of, as far as its transport says; the rest of it is called other.
  enum Part: Int, CaseIterable {
    // Of Crosspoint, see LayerStatistics.Seconds.
    case hash, cluster, encode, decode, skew, wait, policy
    // Of the baseline, see BaselineSeconds.
    case pack, move, unpack, sum
  }

  /// `[blocks + 1][phases][1 + parts]`, those of no block last.
  private var seconds: [Double]
  private let blocks: Int
  private var steps = 0
  private var current = 0
  private var last = ContinuousClock.now
  private var isRunning = false
  private var stepStart = ContinuousClock.now
  /// Where every phase is noted, if anywhere.
  var trace: TraceRecord?

  init(blocks: Int) {
    self.blocks = blocks
    seconds = [Double](repeating: 0, count: (blocks + 1) * Self.slots)
  }

  /// A step begins.
  func start() {
    (current, last, isRunning) = (slot(.other, nil), .now, true)
    stepStart = last
  }

  /// A step ends.
  func stop() {
    _ = enter(current)
    steps += 1
    isRunning = false
    trace?.addStep(from: stepStart, to: last)
  }

  func measure<Result: ~Copyable>(
    _ phase: Phase, block: Int? = nil, _ body: () throws(CrosspointError) -> Result
  ) throws(CrosspointError) -> Result {
    guard isRunning else { return try body() }
    let outer = enter(slot(phase, block))
    defer { _ = enter(outer) }
    return try body()
  }

  /// A transfer, with the parts that its transport has measured.
  func measure<Result: ~Copyable>(
    _ kind: TransferKind, over transport: any ExpertTransport, block: Int, _ body: () throws(CrosspointError) -> Result
  ) throws(CrosspointError) -> Result {
    let phase = Phase(rawValue: kind.rawValue)!
    let result = try measure(phase, block: block, body)
    transport.takeSeconds { part, taken in
      guard isRunning else { return }
      seconds[slot(phase, block)] -= taken
      seconds[slot(phase, block) + 1 + part.rawValue] += taken
    }
    return result
  }

  /// Writes what was noted, beginning with step `first`. Collective.
  func writeTrace(to path: String, first: Int, _ fabric: any Fabric) throws(CrosspointError) {
    try trace?.write(to: path, first: first, fabric) { slot in
      let (block, phase) = (slot / Self.slots, Phase(rawValue: slot % Self.slots / (1 + Part.allCases.count))!)
      return (block < blocks ? "block\(block)." : "") + "\(phase)"
    }
  }

  /// Seconds of a step by phase, means over steps and ranks. Collective.
  func report(_ fabric: any Fabric) throws(CrosspointError) -> PhaseSeconds {
    var sums = seconds
    try fabric.sum(&sums, operation: "phases")
    var report = PhaseSeconds()
    for block in 0...blocks {
      for phase in Phase.allCases {
        for (place, part) in ([nil] + Part.allCases).enumerated() {
          let value = sums[slot(phase, block) + place] / Double(max(1, steps) * fabric.rankCount)
          guard value > 0 else { continue }
          report.seconds[Self.name(phase, part, block: block < blocks ? block : nil)] = value
          report.total += value
          if phase.isTransfer { report.alltoall += value }
        }
      }
    }
    return report
  }

  private static let slots = Phase.allCases.count * (1 + Part.allCases.count)

  /// For example `block1.dispatch.wait`, `block1.experts`, `optimiser`.
  private static func name(_ phase: Phase, _ part: Part?, block: Int?) -> String {
    let rest = phase.isTransfer ? ".other" : ""
    return (block.map { "block\($0)." } ?? "") + "\(phase)" + (part.map { ".\($0)" } ?? rest)
  }

  private func slot(_ phase: Phase, _ block: Int?) -> Int {
    (block ?? blocks) * Self.slots + phase.rawValue * (1 + Part.allCases.count)
  }

  /// What passed since the last call belongs to the phase that was entered then, which it returns.
  private func enter(_ slot: Int) -> Int {
    let now = ContinuousClock.now
    seconds[current] += (now - last).inSeconds
    trace?.add(current, from: last, to: now)
    defer { (current, last) = (slot, now) }
    return current
  }
}

extension StepClock.Phase {
  var isTransfer: Bool { rawValue < TransferKind.allCases.count }
}

struct PhaseSeconds {
  /// By phase; those of a block begin with its name, and those of a transfer end with the part of it.
  var seconds: [String: Double] = [:]
  var total = 0.0
  /// Of all transfers, the rank's own work meanwhile not included.
  var alltoall = 0.0

  var alltoallShare: Double { total == 0 ? 0 : alltoall / total }
}
