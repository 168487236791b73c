import ArgumentParser
import CrosspointCore
import Foundation

/// What counts on the command line may be.
enum Ranges {
  /// Timed runs, and runs before them.
  static let runs = 1...1_000_000
  /// Rows, of a rank or of all.
  static let rows = 1...1 << 32
  /// Ranks that are threads of one process.
  static let simulated = 1...1024

  static func require(_ options: (name: String, value: Int, range: ClosedRange<Int>)...) throws {
    for option in options where !option.range.contains(option.value) {
      throw ValidationError(
        "\(option.name) is \(option.value); \(option.range.lowerBound) to \(option.range.upperBound) is possible")
    }
  }

  /// Whether so many times so many floats go into this machine's memory; asked before any is taken.
  static func requireMemory(_ names: String, _ rows: Int, _ hidden: Int, times copies: Int) throws {
    let memory = Int(clamping: ProcessInfo.processInfo.physicalMemory)
    do throws(CrosspointError) {
      _ = try Extent.product(rows, hidden, copies, 4, most: memory, operation: "arguments", argument: names)
    } catch {
      throw ValidationError("\(names): \(copies) times \(rows) × \(hidden) floats, this machine has \(memory) bytes")
    }
  }
}
