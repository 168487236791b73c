import Foundation

/// What rank 0 prints while it trains: one line that renews itself on a terminal, else a line every ten seconds.
struct ProgressLine {
  /// Open MPI gives its ranks a terminal even where its own output goes to a file.
  private let isTerminal =
    isatty(STDOUT_FILENO) == 1 && ProcessInfo.processInfo.environment["OMPI_COMM_WORLD_RANK"] == nil
  private var last = ContinuousClock.now - .seconds(60)
  private var smoothed: Double?

  /// - Parameter always: prints even if the last line was a moment ago.
  mutating func show(_ metrics: Metrics, of steps: Int, tokensPerSecond: Double, secondsLeft: Double, always: Bool) {
    smoothed = smoothed.map { 0.9 * $0 + 0.1 * metrics.bitsPerByte } ?? metrics.bitsPerByte
    let now = ContinuousClock.now
    guard always || now - last > (isTerminal ? .milliseconds(200) : .seconds(10)) else { return }
    last = now
    let perStep = metrics.wireBytes / Double(metrics.step) / 1e6
    let fraction = metrics.uncompressedBytes > 0 ? 100 * metrics.wireBytes / metrics.uncompressedBytes : 100
    var line =
      "step \(metrics.step)/\(steps)  \(format(smoothed!, 3)) bits/byte  \(Int(tokensPerSecond)) tokens/s  "
      + "\(format(perStep, 2)) MB/step on the wire (\(format(fraction, 1)) % of fp32)  \(duration(secondsLeft)) left"
    if let held = metrics.valBitsPerByte { line += "  held-out \(format(held, 4))" }
    let lasts = !isTerminal || metrics.valBitsPerByte != nil
    print(isTerminal ? "\r\u{1B}[K\(line)" : line, terminator: lasts ? "\n" : "")
    fflush(nil)
  }

  /// A line of its own.
  func say(_ text: String) {
    print(isTerminal ? "\r\u{1B}[K\(text)" : text)
    fflush(nil)
  }

  private func duration(_ seconds: Double) -> String {
    let whole = Int(seconds.rounded())
    return whole < 60 ? "\(whole) s" : whole < 3600 ? "\(whole / 60) min" : "\(whole / 3600) h \(whole / 60 % 60) min"
  }

  private func format(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
}
