import CrosspointExchange

/// The memory of a policy for one transfer: what it chose, what that took, and how sure it is of something better.
///
/// A choice changes
/// - at once, when it breaks the budget and another keeps it;
/// - else when others in the same direction (more bytes, or fewer) were better by ``margin`` in ``requiredSamples``
///   samples in a row: then to the most careful of them.
///
/// Each change of direction doubles that number: whatever the rows do, there are O(log samples) changes of direction.
struct TransferChoiceState: Codable, Equatable, Sendable {
  private(set) var choice: PolicyChoice?
  private(set) var changes = 0

  // Hysteresis.
  /// The most careful choice of the samples in a row that found a better one, and how many those are.
  private var candidate: PolicyChoice?
  private var agreeing = 0
  private var requiredSamples = Self.firstRequiredSamples
  /// +1: the last change was to more bytes; −1: to fewer.
  private var lastDirection = 0

  // Bytes, over all ranks.
  private var sent = SentBytes()
  private var sinceSample = SentBytes()
  /// Bytes above the budget that are still to be saved.
  private var excess = 0.0
  /// Measured bytes per predicted byte.
  private var correction = 1.0

  /// Bytes that were sent, and what bf16 would have taken.
  private struct SentBytes: Codable, Equatable {
    var bytes = 0.0
    var plain = 0.0

    mutating func add(_ bytes: Double, _ plain: Double) {
      self.bytes += bytes
      self.plain += plain
    }
  }

  /// Samples in a row that must agree at first.
  static let firstRequiredSamples = 3
  private static let mostRequiredSamples = 1 << 20
  /// How much better another must be.
  static let margin = 0.05
  /// How far above a byte budget the present choice may be predicted before it goes at once.
  static let tolerance = 0.01
  /// Samples over which excess bytes are saved again.
  private static let recoverySamples = 4.0

  /// What of it cannot be; `nil` where all is well.
  var defect: String? {
    let counts = 0...PolicyState.countLimit
    guard counts.contains(changes), counts.contains(agreeing), (1...Self.mostRequiredSamples).contains(requiredSamples),
      (-1...1).contains(lastDirection)
    else {
      return
        "it has changed \(changes) times, is at \(agreeing) of \(requiredSamples) samples, last moved \(lastDirection)"
    }
    let accounts = [sent.bytes, sent.plain, sinceSample.bytes, sinceSample.plain, excess]
    guard accounts.allSatisfy({ $0 >= 0 && $0.isFinite }), correction > 0, correction.isFinite else {
      return "its byte counts are \(accounts) with a correction of \(correction)"
    }
    return [choice, candidate].lazy.compactMap { $0?.defect }.first
  }

  /// Takes note of a transfer.
  mutating func charge(bytes: Double, plain: Double) {
    sent.add(bytes, plain)
    sinceSample.add(bytes, plain)
    if sent.plain > 0 { choice?.measuredBytes = sent.bytes / sent.plain }
  }

  /// Whether it has been seen what arrives with this choice.
  var isProven: Bool { choice?.measuredError != nil }

  /// Takes note of what arrived of all rows of a transfer.
  mutating func prove(error: Double) {
    if error.isFinite { choice?.measuredError = error }
  }

  /// Chooses anew at the next sample, without regard to the present choice.
  mutating func forget() {
    choice = nil
    correction = 1
    dropCandidate()
  }

  /// One sample: keeps the choice or changes it. Without a usable measurement nothing changes.
  mutating func update(_ measurement: PolicyMeasurement, _ judge: PolicyJudge) {
    guard measurement.isUsable else { return }
    let tightening = settle(measurement, judge)
    var corrections = PolicyJudge.Corrections(bytes: correction)
    if let choice, let proven = choice.measuredError {
      corrections.error = Self.ratio(proven, to: judge.prediction(measurement, of: choice).error)
    }
    let wanted = judge.best(measurement, current: choice, corrections, tightening: tightening)
    guard let current = choice else { return adopt(wanted) }
    var now = judge.prediction(measurement, of: current)
    now.bytes *= correction
    now.error = current.measuredError ?? now.error
    if wanted.acts(as: current) {
      choice?.reason = wanted.reason
      return dropCandidate()
    }
    if breaks(judge.goal, now, tightening), wanted.reason != .unreachable { return change(to: wanted, from: now) }
    let seconds = judge.prediction(measurement, of: wanted).seconds
    guard isBetter(wanted, seconds, than: now, judge.goal) else { return dropCandidate() }
    if let candidate, (candidate.predictedBytes > now.bytes) != (wanted.predictedBytes > now.bytes) { dropCandidate() }
    agreeing += 1
    candidate = candidate.map { moreCareful($0, wanted, judge.goal) } ?? wanted
    if agreeing >= requiredSamples { change(to: candidate!, from: now) }
  }

  /// Takes what was sent since the last sample into account; returns which part of a byte budget is to be held back.
  private mutating func settle(_ measurement: PolicyMeasurement, _ judge: PolicyJudge) -> Double {
    defer { sinceSample = SentBytes() }
    guard let choice, sinceSample.plain > 0 else { return 0 }
    let predicted = judge.prediction(measurement, of: choice).bytes
    if predicted > 0 {
      let ratio = sinceSample.bytes / sinceSample.plain / predicted
      correction = min(2, max(0.5, (correction + ratio) / 2))
    }
    guard case .bytes(let most) = judge.goal, choice.reason == .budget else {
      excess = 0
      return 0
    }
    let allowed = most * sinceSample.plain
    excess = min(Self.recoverySamples * allowed, max(0, excess + sinceSample.bytes - allowed))
    return min(0.5, excess / (Self.recoverySamples * allowed))
  }

  /// How much larger an error was than a sample said, within limits: a sample may miss what matters.
  private static func ratio(_ proven: Double, to predicted: Double) -> Double {
    guard predicted > 0, proven > 0, proven.isFinite else { return 1 }
    return min(16, max(1 / 16, proven / predicted))
  }

  private func breaks(_ goal: Budget.Goal, _ now: PolicyJudge.Prediction, _ tightening: Double) -> Bool {
    switch goal {
    case .bytes(let most): now.bytes > most * (1 - tightening) * (1 + Self.tolerance)
    case .relativeError(let most), .fastest(let most): now.error > most
    }
  }

  private func isBetter(
    _ wanted: PolicyChoice, _ seconds: Double, than now: PolicyJudge.Prediction, _ goal: Budget.Goal
  ) -> Bool {
    switch (goal, wanted.reason) {
    case (_, .nothingTravels), (_, .unmeasured), (_, .fewRows), (_, .budgetAllows): true
    case (.fastest, _): seconds < (1 - Self.margin) * now.seconds
    case (.bytes, .budget):
      max(wanted.predictedError, PolicyJudge.leastError) < (1 - Self.margin) * max(now.error, PolicyJudge.leastError)
    default: wanted.predictedBytes < (1 - Self.margin) * now.bytes
    }
  }

  /// Of two, the one that is safer from breaking the budget.
  private func moreCareful(
    _ a: PolicyChoice, _ b: PolicyChoice, _ goal: Budget.Goal
  ) -> PolicyChoice {
    switch goal {
    case .relativeError, .fastest: a.predictedBytes > b.predictedBytes ? a : b
    case .bytes: a.predictedBytes < b.predictedBytes ? a : b
    }
  }

  private mutating func change(to wanted: PolicyChoice, from now: PolicyJudge.Prediction) {
    let direction = wanted.predictedBytes > now.bytes ? 1 : -1
    if lastDirection == -direction { requiredSamples = min(2 * requiredSamples, Self.mostRequiredSamples) }
    lastDirection = direction
    changes += 1
    adopt(wanted)
  }

  private mutating func adopt(_ wanted: PolicyChoice) {
    choice = wanted
    if wanted.keepsEveryBit { choice?.measuredError = 0 }
    correction = 1
    sent = SentBytes()
    dropCandidate()
  }

  private mutating func dropCandidate() {
    candidate = nil
    agreeing = 0
  }
}
