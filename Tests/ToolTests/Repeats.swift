import Foundation

/// How thoroughly the tests look: few repeats and samples by default, for a short run.
enum Repeats {
  /// CROSSPOINT_REPEATS: how often a case is repeated where ranks race to leave; then nothing is left out either.
  static let asked = ProcessInfo.processInfo.environment["CROSSPOINT_REPEATS"].flatMap { Int($0) }

  /// Numbers of ranks on which what fails alike on any is tried.
  static let rankCounts = asked == nil ? [4] : [2, 4]
}
