import Crosspoint
import CrosspointFiles
import Foundation

/// When a rank did what: what `--trace` writes of all ranks, in the Trace Event Format, which Perfetto opens.
///
/// Its times begin where the ranks left a barrier together.
struct TraceRecord {
  /// So many steps of a run are kept.
  static let steps = 100

  /// Of phases, and of steps, which are named −1, −2, ….
  private var spans: [(name: Int32, start: ContinuousClock.Instant, end: ContinuousClock.Instant)] = []
  private let origin: ContinuousClock.Instant
  private var stepsKept = 0

  /// Collective.
  init(_ fabric: any Fabric) throws(CrosspointError) {
    try fabric.barrier(operation: "trace")
    origin = .now
  }

  /// - Parameter phase: what ``StepClock`` calls it.
  mutating func add(_ phase: Int, from start: ContinuousClock.Instant, to end: ContinuousClock.Instant) {
    if stepsKept < Self.steps { spans.append((Int32(phase), start, end)) }
  }

  /// A step is at its end.
  mutating func addStep(from start: ContinuousClock.Instant, to end: ContinuousClock.Instant) {
    guard stepsKept < Self.steps else { return }
    stepsKept += 1
    spans.append((-Int32(stepsKept), start, end))
  }

  /// Writes the file of all ranks: rank 0 does. Collective.
  /// - Parameters:
  ///   - first: the number of the first step.
  ///   - name: of a phase.
  /// - Throws: `file`, on every rank.
  func write(
    to path: String, first: Int, _ fabric: any Fabric, name: (Int) -> String
  ) throws(CrosspointError) {
    let all = try fabric.gatherOnRoot(Array(events(rank: fabric.rank, first: first, name: name).utf8))
    try fabric.onRoot(operation: "trace") { () throws(CrosspointError) in
      let text = Array("{\"traceEvents\":[\n".utf8) + Array(all.joined(separator: ",\n".utf8)) + Array("\n]}\n".utf8)
      try writeFile(path, text, argument: "trace", patience: fabric.deadline / 2)
    }
  }

  /// The elements of the file's array; times are in microseconds.
  private func events(rank: Int, first: Int, name: (Int) -> String) -> String {
    func microseconds(_ duration: Duration) -> String { String(format: "%.3f", duration.inSeconds * 1e6) }
    let title = "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":\(rank),\"args\":{\"name\":\"rank \(rank)\"}}"
    let lines = spans.map { span in
      let name = span.name < 0 ? "step \(first - Int(span.name) - 1)" : name(Int(span.name))
      return "{\"name\":\"\(name)\",\"ph\":\"X\",\"pid\":\(rank),\"tid\":0,\"ts\":\(microseconds(span.start - origin)),"
        + "\"dur\":\(microseconds(span.end - span.start))}"
    }
    return ([title] + lines).joined(separator: ",\n")
  }
}

extension Fabric {
  /// Every rank's bytes, by rank, on rank 0; nothing elsewhere. Collective.
  fileprivate func gatherOnRoot(_ mine: [UInt8]) throws(CrosspointError) -> [[UInt8]] {
    let counts = try gather([mine.count], operation: "trace")
    let places = counts.map { UnsafeMutableRawBufferPointer.allocate(byteCount: rank == 0 ? $0[0] : 0, alignment: 1) }
    defer { for place in places { place.deallocate() } }
    try mine.withUnsafeBufferPointer { mine throws(CrosspointError) in
      let blocks = (0..<rankCount).map {
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(mine).prefix($0 == 0 ? mine.count : 0))
      }
      try exchange(send: blocks, receive: places, operation: "trace")
    }
    return rank == 0 ? places.map { Array($0) } : []
  }
}
