/// How slow the simulated network is: every rank has one port, full duplex, to an ideal switch.
///
/// A rank sends its blocks one after the other (to rank+1 first), and a receiver takes blocks in at the same speed. Traffic of a rank with itself is free. Delays are slept, not computed with.
public struct LinkModel: Sendable, Hashable {
  package var latency: Duration
  package var bytesPerSecond: Double

  /// - Parameters:
  ///   - latency: from the last byte sent to the last byte received.
  ///   - bytesPerSecond: speed of a port in each direction.
  public init(latency: Duration, bytesPerSecond: Double) {
    precondition(latency >= .zero && bytesPerSecond > 0, "a link of \(latency) and \(bytesPerSecond) bytes/s")
    self.latency = latency
    self.bytesPerSecond = bytesPerSecond
  }

  /// How long a port is busy with `bytes`: at most a century, which is later than any deadline.
  func transmission(of bytes: Int) -> Duration { .seconds(min(Double(bytes) / bytesPerSecond, 3e9)) }
}
