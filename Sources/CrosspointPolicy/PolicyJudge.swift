import CrosspointExchange

/// Turns measurements into the best choice for a budget: no memory, no clock.
struct PolicyJudge {
  let goal: Budget.Goal
  let hidden: Int
  /// Bytes of the announcements of one transfer, over all ranks; those of samples in equal parts.
  let announcementBytes: Double
  let speed: PolicySpeed?

  /// Errors below this are felt by nobody: they count as equal.
  static let leastError = 1e-4
  /// What is chosen for an error budget is predicted to stay this far within it, for samples are not the whole.
  static let errorHeadroom = 0.95
  /// The error of clusters that are not in use is known from a few groups only: it counts as so much larger.
  static let clusterDoubt = 1.1

  /// How one possibility would do.
  struct Prediction: Equatable {
    var error: Double
    /// Bytes per byte of bf16.
    var bytes: Double
    var seconds = 0.0
  }

  /// Measured per predicted, of bytes and errors, for choices with the cluster rate of the present one.
  struct Corrections {
    var bytes = 1.0
    var error = 1.0
  }

  /// - Parameters:
  ///   - corrections: what the choice `current` has taught.
  ///   - tightening: the part of a byte budget that is held back to make up for earlier excess.
  func best(
    _ measurement: PolicyMeasurement, current: PolicyChoice?, _ corrections: Corrections, tightening: Double
  ) -> PolicyChoice {
    let plain = bytesOfBF16(measurement)
    let lossless = prediction(measurement, clustering: 0, code: .fp32)
    if goal == .bytes(2) { return .lossless(.budgetAllows, bytes: lossless.bytes) }
    if announcementBytes >= 2 * plain { return .lossless(.fewRows, bytes: lossless.bytes) }
    var best: (choice: PolicyChoice, prediction: Prediction)?
    func believe(_ clustering: Int, _ code: PolicyMenu.Code) -> (believed: Prediction, predicted: Double) {
      var prediction = prediction(measurement, clustering: clustering, code: code)
      var predicted = prediction.error
      if clusterRate(clustering) == current?.clusterRate {
        prediction.bytes *= corrections.bytes
        prediction.error *= corrections.error
        predicted = prediction.error
      } else if clustering > 0 {
        prediction.error *= Self.clusterDoubt
      }
      return (prediction, predicted)
    }
    func consider(_ clustering: Int, _ code: PolicyMenu.Code) {
      let (prediction, predicted) = believe(clustering, code)
      let reason: PolicyChoice.Reason = keeps(prediction, tightening: tightening) ? .budget : .unreachable
      guard best.map({ precedes(prediction, reason, $0.prediction, $0.choice.reason) }) ?? true else { return }
      let choice = PolicyChoice(
        clusterRate: clusterRate(clustering), wire: code.wire, reason: reason, predictedError: predicted,
        predictedBytes: prediction.bytes)
      best = (choice, prediction)
    }
    for clustering in measurement.kept.indices where measurement.kept[clustering] > 0 {
      // What clusters take, and what they spare the experts, is not timed.
      if clustering > 0, case .fastest = goal { break }
      consider(clustering, .fp32)
      for format in PolicyMenu.formats.indices { consider(clustering, .fixed(format)) }
      let rate = entropyRate({ believe(clustering, .entropy($0)).believed }, tightening: tightening)
      consider(clustering, .entropy(rate))
    }
    guard let choice = best?.choice else { preconditionFailure("rows that are measured can be sent") }
    if case .fastest = goal, choice.keepsEveryBit { return .lossless(.slowCodec, bytes: lossless.bytes) }
    return choice
  }

  /// How the present choice does now.
  func prediction(_ measurement: PolicyMeasurement, of choice: PolicyChoice) -> Prediction {
    prediction(
      measurement, clustering: choice.clusterRate.flatMap(PolicyMenu.rates.firstIndex).map { $0 + 1 } ?? 0,
      code: PolicyMenu.Code(choice.wire))
  }

  /// Of all rates the one that uses up the budget: the finest within the bytes, or the coarsest within the error. Bytes
  /// rise with the rate and errors fall, so that halving finds it.
  private func entropyRate(_ prediction: (Double) -> Prediction, tightening: Double) -> Double {
    let first = Int((PolicyMenu.entropyRates.lowerBound * 100).rounded())
    var (low, high) = (first, Int((PolicyMenu.entropyRates.upperBound * 100).rounded()))
    let seeksFine = if case .bytes = goal { true } else { false }
    while low < high {
      let middle = seeksFine ? (low + high + 1) / 2 : (low + high) / 2
      switch (seeksFine, keeps(prediction(Double(middle) / 100), tightening: tightening)) {
      case (true, true): low = middle
      case (true, false): high = middle - 1
      case (false, true): high = middle
      case (false, false): low = middle + 1
      }
    }
    return Double(low) / 100
  }

  /// Whether it keeps the budget with the margin that a new choice needs.
  private func keeps(_ prediction: Prediction, tightening: Double) -> Bool {
    switch goal {
    case .bytes(let most): prediction.bytes <= most * (1 - tightening)
    case .relativeError(let most), .fastest(let most): prediction.error <= most * Self.errorHeadroom
    }
  }

  /// Whether one is to be preferred to the best so far.
  private func precedes(
    _ prediction: Prediction, _ reason: PolicyChoice.Reason, _ best: Prediction, _ bestReason: PolicyChoice.Reason
  ) -> Bool {
    if reason != bestReason { return reason == .budget }
    let errors = (max(prediction.error, Self.leastError), max(best.error, Self.leastError))
    if case .bytes = goal, reason == .budget { return (errors.0, prediction.bytes) < (errors.1, best.bytes) }
    if case .fastest = goal { return (prediction.seconds, errors.0) < (best.seconds, errors.1) }
    return (prediction.bytes, errors.0) < (best.bytes, errors.1)
  }

  private func prediction(_ measurement: PolicyMeasurement, clustering: Int, code: PolicyMenu.Code) -> Prediction {
    let estimate = measurement.estimate(clustering: clustering, code: code, hidden: hidden)
    let bytes = estimate.bytes + announcementBytes
    let coded = measurement.estimate(clustering: clustering, code: .fp32, hidden: hidden).bytes
    return Prediction(
      error: estimate.error, bytes: bytes / bytesOfBF16(measurement),
      seconds: speed?.seconds(bytes: bytes, coding: coded, code: code) ?? 0)
  }

  private func clusterRate(_ clustering: Int) -> Float? { clustering == 0 ? nil : PolicyMenu.rates[clustering - 1] }
  private func bytesOfBF16(_ measurement: PolicyMeasurement) -> Double { 2 * Double(hidden) * measurement.pairs }
}
