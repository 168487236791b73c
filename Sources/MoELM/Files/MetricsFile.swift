import CrosspointCore
import CrosspointFiles
import Foundation

/// One line of `--metrics`. Counters are sums over ranks since the first step.
struct Metrics: Codable {
  var step: Int
  var bitsPerByte: Double
  var valBitsPerByte: Double?
  var loadBalance: Double
  /// The stages' own losses.
  var stageLoss: Double
  var gradientNorm: Double
  var learningRate: Double
  var tokensPerSecond: Double
  var seconds: Double
  var wireBytes: Double
  var uncompressedBytes: Double
  var rowsSent: Double
  var rowsTotal: Double
  /// Of this step alone, like all that follows.
  var residualEnergy: Double
  /// What every stage let through.
  var stages: [StageCount]
  /// Share of the tokens that deletions left out or, in a soft step, would.
  var deletionRate: Double?
  /// Share of the experts after the first that trims left.
  var keptFurtherExperts: Double?
  /// How alike the granularities choose, a mean over layers.
  var jaccard: Double?
  /// Seconds in stages, the mean over ranks.
  var stageSeconds: Double
}

/// Appends metrics, a line at a time.
final class MetricsFile {
  /// A line of this or another version.
  private struct Numbered: Decodable {
    let step: Int
  }

  private let lines: LineWriter
  private let encoder = JSONEncoder()

  /// - Parameters:
  ///   - keeping: lines of later steps are dropped, so that a resumed run goes on where its checkpoint was.
  ///   - patience: how long the reader of a FIFO may take nothing.
  /// - Throws: `file`.
  init(_ path: String, keeping lastStep: Int, patience: Duration) throws(CrosspointError) {
    var kept: [UInt8] = []
    if lastStep > 0, case .file(let file) = try FileDestination(path, argument: "metrics"), access(file, F_OK) == 0 {
      for line in try readFile(file, argument: "metrics").split(separator: UInt8(ascii: "\n")) {
        guard let numbered = try? JSONDecoder().decode(Numbered.self, from: Data(line)), numbered.step <= lastStep
        else {
          continue
        }
        kept += line + [UInt8(ascii: "\n")]
      }
    }
    lines = try LineWriter(path, argument: "metrics", keeping: kept, patience: patience)
    encoder.outputFormatting = [.sortedKeys]
  }

  /// - Throws: `file`.
  func append(_ metrics: Metrics) throws(CrosspointError) {
    guard let line = try? encoder.encode(metrics) else {
      throw CrosspointError(
        .nonFinite, operation: "file", argument: "metrics", "step \(metrics.step) has a number that is not finite")
    }
    try lines.append(line)
  }
}
