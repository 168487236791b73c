import CrosspointCompression
import CrosspointCore
import Foundation
import Testing

@testable import CrosspointExchange
@testable import CrosspointPolicy

/// The choice for a transfer, by made-up measurements.
private struct Chooser {
  var state = TransferChoiceState()
  let judge: PolicyJudge

  init(_ goal: Budget.Goal) {
    judge = PolicyJudge(goal: goal, hidden: 64, announcementBytes: 0, speed: nil)
  }

  /// One sample after an interval that took what was predicted for rows like these.
  mutating func sample(_ measurement: PolicyMeasurement) -> WireFormat {
    if let choice = state.choice {
      let plain = 2 * 64 * measurement.pairs
      state.charge(bytes: judge.prediction(measurement, of: choice).bytes * plain, plain: plain)
    }
    state.update(measurement, judge)
    return state.choice!.wire
  }
}

@Suite struct PolicyHysteresisTests {
  static let easy = PolicyMeasurement.gaussian(rows: 1000, hidden: 64, easiness: 0.2)
  static let hard = PolicyMeasurement.gaussian(rows: 1000, hidden: 64)

  @Test func somethingBetterMustLast() {
    var chooser = Chooser(.relativeError(0.1))
    #expect(chooser.sample(Self.hard) == WireFormat("rotated:4"))
    // Two good samples are no reason, three are.
    for sample in [Self.easy, Self.easy, Self.hard, Self.easy, Self.easy] {
      #expect(chooser.sample(sample) == WireFormat("rotated:4"))
    }
    #expect(chooser.sample(Self.easy) == WireFormat("rotated:3"))
    #expect(chooser.state.changes == 1)
  }

  @Test func aBrokenBudgetChangesAtOnce() {
    var chooser = Chooser(.relativeError(0.1))
    #expect(chooser.sample(Self.easy) == WireFormat("rotated:3"))
    #expect(chooser.sample(Self.hard) == WireFormat("rotated:4"))
  }

  /// What all rows showed counts, not what a sample had promised; and the next choice allows for it.
  @Test func anErrorThatTheSampleMissedChangesTheChoiceAtOnce() {
    var chooser = Chooser(.relativeError(0.1))
    #expect(chooser.sample(Self.hard) == WireFormat("rotated:4"))
    chooser.state.prove(error: 0.2)
    #expect(chooser.sample(Self.hard) == WireFormat("rotated:6"))
    #expect(chooser.state.choice?.measuredError == nil)
  }

  @Test func eachReversalDoublesThePatience() {
    var chooser = Chooser(.relativeError(0.1))
    _ = chooser.sample(Self.hard)
    for samples in [3, 6, 24, 96] {
      // Down after so many easy samples, and at once up again: two reversals, but one the first time.
      for _ in 1..<samples { #expect(chooser.sample(Self.easy) == WireFormat("rotated:4")) }
      #expect(chooser.sample(Self.easy) == WireFormat("rotated:3"))
      #expect(chooser.sample(Self.hard) == WireFormat("rotated:4"))
    }
  }

  /// Whatever comes, changes become rare.
  @Test(arguments: [
    Budget.Goal.bytes(0.2), .bytes(0.5), .relativeError(0.1), .relativeError(0.01),
  ])
  func adversariesGetFewChanges(goal: Budget.Goal) {
    let samples = 1024
    let mostChanges = 2 * 10 + 20  // a reversal doubles the samples needed: 2 log₂ of them; and once through the menu
    func changes(_ next: (Int, TransferChoiceState) -> PolicyMeasurement) -> Int {
      var chooser = Chooser(goal)
      for index in 0..<samples { _ = chooser.sample(next(index, chooser.state)) }
      return chooser.state.changes
    }
    func rows(_ bytes: Double, _ easiness: Double) -> PolicyMeasurement {
      var rows = PolicyMeasurement.gaussian(rows: 1000, hidden: 64, easiness: easiness)
      for index in rows.bytes[0].indices { rows.bytes[0][index] *= bytes }
      return rows
    }
    for period in [1, 3, 4, 50] {
      let isLow: (Int) -> Bool = { ($0 / period).isMultiple(of: 2) }
      #expect(changes { index, _ in isLow(index) ? Self.easy : Self.hard } <= mostChanges)
      #expect(changes { index, _ in isLow(index) ? rows(1, 1) : rows(1.6, 0.3) } <= mostChanges)
    }
    var generator = SplitMix64(seed: 5)
    #expect(
      changes { _, _ in rows(Double(0.5 + generator.nextUnit()), Double(0.05 + generator.nextUnit())) } <= mostChanges)
    // Against the present choice: it costs too much as soon as it is made, and too little once it is left.
    var last: WireFormat?
    #expect(
      changes { index, state in
        defer { last = state.choice?.wire }
        return state.choice?.wire == last ? rows(0.6, 0.2) : rows(1.5, 1)
      } <= mostChanges)
  }

  @Test func noiseAroundABudgetChangesNothing() {
    var generator = SplitMix64(seed: 9)
    for fraction in [0.125, 0.13, 0.2, 0.26] {
      var chooser = Chooser(.bytes(fraction))
      for _ in 0..<500 {
        var rows = Self.hard
        let noise = 1 + 0.004 * (Double(generator.nextUnit()) - 0.5)
        for index in rows.bytes[0].indices { rows.bytes[0][index] *= noise }
        _ = chooser.sample(rows)
      }
      #expect(chooser.state.changes <= 1, "\(fraction)")
    }
  }

  /// Predicted too low by a tenth: the account notices, and the mean keeps the budget.
  @Test func feedbackKeepsABudgetThatPredictionsWouldBreak() {
    let judge = PolicyJudge(goal: .bytes(0.26), hidden: 64, announcementBytes: 0, speed: nil)
    var state = TransferChoiceState()
    var (bytes, plain) = (0.0, 0.0)
    state.update(Self.hard, judge)
    #expect(state.choice?.wire == WireFormat("rotated:4"))
    for _ in 0..<400 {
      let mine = 2 * 64 * Self.hard.pairs
      let sent = 1.1 * judge.prediction(Self.hard, of: state.choice!).bytes * mine
      state.charge(bytes: sent, plain: mine)
      (bytes, plain) = (bytes + sent, plain + mine)
      state.update(Self.hard, judge)
    }
    #expect(bytes / plain <= 0.26 * 1.02)
    #expect(state.changes < 10)
  }

  @Test func whatIsNoNumberChangesNothing() {
    var chooser = Chooser(.bytes(0.2))
    _ = chooser.sample(Self.hard)
    let before = chooser.state.choice
    var broken = Self.easy
    broken.energy = .nan
    chooser.state.update(broken, chooser.judge)
    chooser.state.update(PolicyMeasurement(), chooser.judge)
    #expect(chooser.state.choice == before)
  }
}
