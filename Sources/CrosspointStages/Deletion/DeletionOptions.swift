/// Which rows a ``DeletionGate`` deletes.
public struct DeletionOptions: Sendable, Hashable {
  /// How a row's fate is decided.
  public enum Rule: Sendable, Hashable {
    /// By a learned gate.
    case learned(Learning)
    /// Each row with probability `rate`, drawn anew for every batch: a baseline. Nothing is learned.
    case random(rate: Double)
    /// By place: rows are kept at even distances, the first of a sequence always unless the rate is 1: a baseline. Nothing
    /// is learned.
    case fixed(rate: Double)
    /// By the caller, who sets ``DeletionGate/keep`` before each batch: MrT5's own form, whose gate also weighs attention.
    case supplied
  }

  /// How the gate learns.
  public struct Learning: Sendable, Hashable {
    /// What fixes the weight α of the regulariser.
    public enum Regulariser: Sendable, Hashable {
      case constant(Double)
      /// A PI controller moves α until a `target` share of the rows is deleted; see docs/stages.md.
      case controlled(target: Double, proportional: Double = 0.5, integral: Double = 1e-5, leastWeight: Double = 0)
      /// The caller moves ``DeletionGate/suppliedWeight``, by what ``DeletionGate/takeCounts()`` says: one controller for
      /// the gates of several layers, which then find each layer's share of the deletions [ours].
      case supplied
    }

    package var regulariser: Regulariser
    package var hardProbability: Double
    package var isHardInEvaluation: Bool

    /// - Parameters:
    ///   - regulariser: what fixes the weight α.
    ///   - hardProbability: of a training step to be hard: deleted rows stay home. All others are soft: every row travels,
    ///     weighed. Rows that are always deleted learn nothing but to be deleted, so leave some steps soft.
    ///   - isHardInEvaluation: whether evaluation deletes; otherwise it weighs.
    public init(regulariser: Regulariser, hardProbability: Double = 0.5, isHardInEvaluation: Bool = true) {
      self.regulariser = regulariser
      self.hardProbability = hardProbability
      self.isHardInEvaluation = isHardInEvaluation
    }
  }

  package var rule: Rule
  package var warmUp: Int
  package var seed: UInt64

  /// - Parameters:
  ///   - rule: how a row's fate is decided.
  ///   - warmUp: optimiser steps before training deletes anything, a learned gate being soft until then; over as many again
  ///     the rate rises to its target [ours]. What an untrained model finds dispensable says little. Without effect on
  ///     `supplied` marks and on evaluation.
  ///   - seed: of the gate's first weights and every draw. Give each layer its own.
  public init(rule: Rule, warmUp: Int = 0, seed: UInt64 = 0) {
    self.rule = rule
    self.warmUp = warmUp
    self.seed = seed
  }

  /// The part of the rate that training has reached at an optimiser step: 0, then rising, then 1.
  package func warmth(step: Int) -> Double {
    warmUp == 0 ? 1 : min(1, max(0, Double(step - warmUp) / Double(warmUp)))
  }
}

extension DeletionOptions {
  /// What makes it another gate if changed.
  var text: String {
    let text =
      switch rule {
      case .random(let rate): "random=\(rate),seed=\(seed)"
      case .fixed(let rate): "fixed=\(rate)"
      case .supplied: "supplied"
      case .learned(let learning): "learned,\(learning.text),seed=\(seed)"
      }
    return warmUp == 0 ? text : "\(text),warm-up=\(warmUp)"
  }
}

extension DeletionOptions.Learning {
  var text: String {
    let weight =
      switch regulariser {
      case .constant(let value): "alpha=\(value)"
      case .controlled(let target, let proportional, let integral, let least):
        "target=\(target),kp=\(proportional),ki=\(integral),least=\(least)"
      case .supplied: "alpha=supplied"
      }
    return "\(weight),hard=\(hardProbability),evaluation=\(isHardInEvaluation ? "hard" : "soft")"
  }
}
