import Foundation
import LaunchSupport

/// A command line tool as users run it.
///
/// ```swift
/// let outcome = try Tool.moeLM.run(["train", "--ranks-simulated", "4"] + tiny)
/// let outcome = try Tool.moeLM.run(ranks: 4, ["train"] + tiny + ["--top-k", "9"])
/// let outcome = try Tool.moeLM.run(ranks: 4, ["train"] + tiny, onRank: 1, ["--clip", "0"])
/// ```
enum Tool: String {
  case moeLM = "moe-lm"
  case xpoint

  /// Ranks with the same command line.
  struct Group {
    let ranks: Int
    let arguments: [String]
  }

  private var variable: String { self == .moeLM ? "CROSSPOINT_MOE_LM" : "CROSSPOINT_XPOINT" }

  /// The tool itself: CROSSPOINT_MOE_LM or CROSSPOINT_XPOINT, else the product of this build.
  func executable() throws -> URL { try Programs.product(rawValue, variable: variable) }

  /// Starts one process without mpirun.
  func start(_ arguments: [String], limit: Double = 60, environment: [String: String] = [:]) throws -> Launch {
    try Launch(executable(), arguments, limit: limit, environment: environment)
  }

  /// Starts ranks under mpirun, group by group.
  func start(_ groups: [Group], limit: Double = 60, environment: [String: String] = [:]) throws -> Launch {
    let tool = try executable().path
    let each = groups.filter { $0.ranks > 0 }.map { ["-n", "\($0.ranks)", tool] + $0.arguments }
    let arguments = Programs.oversubscribe + each.joined(separator: [":"])
    return try Launch(Programs.mpirun(), arguments, limit: limit, environment: environment)
  }

  func run(_ arguments: [String], limit: Double = 60, environment: [String: String] = [:]) throws -> Outcome {
    try start(arguments, limit: limit, environment: environment).wait()
  }

  /// - Parameters:
  ///   - odd: the one rank that gets further arguments.
  ///   - more: what they are; the last of an option given twice holds.
  func run(
    ranks: Int, _ arguments: [String], onRank odd: Int = 0, _ more: [String] = [], limit: Double = 60,
    environment: [String: String] = [:]
  ) throws -> Outcome {
    let groups =
      more.isEmpty
      ? [Group(ranks: ranks, arguments: arguments)]
      : [
        Group(ranks: odd, arguments: arguments), Group(ranks: 1, arguments: arguments + more),
        Group(ranks: ranks - odd - 1, arguments: arguments),
      ]
    return try start(groups, limit: limit, environment: environment).wait()
  }
}
