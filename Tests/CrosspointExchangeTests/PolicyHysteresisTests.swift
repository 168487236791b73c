import CrosspointCompression
import CrosspointCore
import Foundation
import Testing

@testable import CrosspointExchange

/// A direction that looks at made-up measurements.
private struct Watcher {
  var direction = PolicyDirection()
  let judge: PolicyJudge

  init(_ goal: ExchangeOptions.Policy.Goal) {
    judge = PolicyJudge(goal: goal, hidden: 64, announcementBytes: 0, speed: nil)
  }

  /// One look after an interval that took what was predicted for rows like these.
  mutating func look(_ measurement: PolicyMeasurement) -> WireFormat {
    if let choice = direction.choice {
      let plain = 2 * 64 * measurement.pairs
      direction.charge(bytes: judge.outlook(measurement, of: choice).bytes * plain, plain: plain)
    }
    direction.look(measurement, judge)
    return direction.choice!.wire
  }
}

@Suite struct PolicyHysteresisTests {
  static let easy = PolicyMeasurement.gaussian(rows: 1000, hidden: 64, easiness: 0.2)
  static let hard = PolicyMeasurement.gaussian(rows: 1000, hidden: 64)

  @Test func somethingBetterMustLast() {
    var watcher = Watcher(.relativeError(0.1))
    #expect(watcher.look(Self.hard) == WireFormat("rotated:4"))
    // Two good looks are no reason, three are.
    for look in [Self.easy, Self.easy, Self.hard, Self.easy, Self.easy] {
      #expect(watcher.look(look) == WireFormat("rotated:4"))
    }
    #expect(watcher.look(Self.easy) == WireFormat("rotated:3"))
    #expect(watcher.direction.changes == 1)
  }

  @Test func aBrokenBudgetChangesAtOnce() {
    var watcher = Watcher(.relativeError(0.1))
    #expect(watcher.look(Self.easy) == WireFormat("rotated:3"))
    #expect(watcher.look(Self.hard) == WireFormat("rotated:4"))
  }

  /// What all rows showed counts, not what a sample had promised; and the next choice allows for it.
  @Test func anErrorThatTheSampleMissedChangesTheChoiceAtOnce() {
    var watcher = Watcher(.relativeError(0.1))
    #expect(watcher.look(Self.hard) == WireFormat("rotated:4"))
    watcher.direction.prove(error: 0.2)
    #expect(watcher.look(Self.hard) == WireFormat("rotated:6"))
    #expect(watcher.direction.choice?.measuredError == nil)
  }

  @Test func eachReversalDoublesThePatience() {
    var watcher = Watcher(.relativeError(0.1))
    _ = watcher.look(Self.hard)
    for patience in [3, 6, 24, 96] {
      // Down after so many easy looks, and at once up again: two reversals, but one the first time.
      for _ in 1..<patience { #expect(watcher.look(Self.easy) == WireFormat("rotated:4")) }
      #expect(watcher.look(Self.easy) == WireFormat("rotated:3"))
      #expect(watcher.look(Self.hard) == WireFormat("rotated:4"))
    }
  }

  /// Whatever comes, changes become rare.
  @Test(arguments: [
    ExchangeOptions.Policy.Goal.bytes(0.2), .bytes(0.5), .relativeError(0.1), .relativeError(0.01),
  ])
  func adversariesGetFewChanges(goal: ExchangeOptions.Policy.Goal) {
    let looks = 1024
    let mostChanges = 2 * 10 + 20  // reversals double patience: 2 log₂ of the looks; and a way through the menu
    func changes(_ next: (Int, PolicyDirection) -> PolicyMeasurement) -> Int {
      var watcher = Watcher(goal)
      for index in 0..<looks { _ = watcher.look(next(index, watcher.direction)) }
      return watcher.direction.changes
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
      changes { index, direction in
        defer { last = direction.choice?.wire }
        return direction.choice?.wire == last ? rows(0.6, 0.2) : rows(1.5, 1)
      } <= mostChanges)
  }

  @Test func noiseAroundABudgetChangesNothing() {
    var generator = SplitMix64(seed: 9)
    for fraction in [0.125, 0.13, 0.2, 0.26] {
      var watcher = Watcher(.bytes(fraction))
      for _ in 0..<500 {
        var rows = Self.hard
        let noise = 1 + 0.004 * (Double(generator.nextUnit()) - 0.5)
        for index in rows.bytes[0].indices { rows.bytes[0][index] *= noise }
        _ = watcher.look(rows)
      }
      #expect(watcher.direction.changes <= 1, "\(fraction)")
    }
  }

  /// Predicted too low by a tenth: the account notices, and the mean keeps the budget.
  @Test func feedbackKeepsABudgetThatPredictionsWouldBreak() {
    let judge = PolicyJudge(goal: .bytes(0.26), hidden: 64, announcementBytes: 0, speed: nil)
    var direction = PolicyDirection()
    var (bytes, plain) = (0.0, 0.0)
    direction.look(Self.hard, judge)
    #expect(direction.choice?.wire == WireFormat("rotated:4"))
    for _ in 0..<400 {
      let mine = 2 * 64 * Self.hard.pairs
      let sent = 1.1 * judge.outlook(Self.hard, of: direction.choice!).bytes * mine
      direction.charge(bytes: sent, plain: mine)
      (bytes, plain) = (bytes + sent, plain + mine)
      direction.look(Self.hard, judge)
    }
    #expect(bytes / plain <= 0.26 * 1.02)
    #expect(direction.changes < 10)
  }

  @Test func whatIsNoNumberChangesNothing() {
    var watcher = Watcher(.bytes(0.2))
    _ = watcher.look(Self.hard)
    let before = watcher.direction.choice
    var broken = Self.easy
    broken.energy = .nan
    watcher.direction.look(broken, watcher.judge)
    watcher.direction.look(PolicyMeasurement(), watcher.judge)
    #expect(watcher.direction.choice == before)
  }
}
