/// Rows of one of this rank's experts that are there, while others may still be under way.
///
/// A wave is what came from one rank, or what was there at once: a fixed set of rows. It is handed out expert by expert, each
/// piece with what lies together; every row is in exactly one. See
/// ``ExpertExchange/dispatch(_:_:labels:meanwhile:waves:)``.
public struct ExpertWave: Sendable, Equatable {
  /// The expert, from 0 among this rank's.
  public let expert: Int
  /// Its rows, among all of the transfer.
  public let rows: Range<Int>
}

/// The pieces of the waves that are there, in order.
struct WaveQueue {
  private var waves: [ExpertWave] = []
  private var next = 0
  /// The rows of each expert that may be joined by others.
  private var open: [Range<Int>] = []

  var isEmpty: Bool { next == waves.count }

  mutating func popFirst() -> ExpertWave? {
    guard next < waves.count else { return nil }
    next += 1
    return waves[next - 1]
  }

  /// Begins a wave, after all before it have been taken.
  mutating func begin(experts: Int) {
    waves.removeAll(keepingCapacity: true)
    next = 0
    open.refill(with: 0..<0, count: experts)
  }

  /// Adds rows of an expert behind those that it has.
  mutating func add(_ expert: Int, _ rows: Range<Int>) {
    if open[expert].upperBound == rows.lowerBound {
      open[expert] = open[expert].lowerBound..<rows.upperBound
    } else if !rows.isEmpty {
      close(expert)
      open[expert] = rows
    }
  }

  mutating func end() {
    for expert in open.indices { close(expert) }
  }

  private mutating func close(_ expert: Int) {
    if !open[expert].isEmpty { waves.append(ExpertWave(expert: expert, rows: open[expert])) }
    open[expert] = 0..<0
  }
}
