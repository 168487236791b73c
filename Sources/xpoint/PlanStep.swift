import Crosspoint

/// The four transfers of a layer's training step, predicted from what codes and links of a machine take.
///
/// A transfer takes, at the rank that gets most: its rounds, the bytes over its links, its codes, and a pass over the experts'
/// rows. What overlaps is not counted as such, and ranks are taken to begin together.
struct PlanStep: Encodable {
  var copies: String
  var wire: String
  /// Bytes of a step that arrive at the rank that gets most, between nodes and within its node.
  var bytesBetween: Double
  var bytesWithin: Double
  /// Seconds of all four transfers together: their parts.
  var rounds: Double
  var links: Double
  var codes: Double
  var rows: Double
  /// The experts' rows and outputs of that rank, and the frames of a transfer.
  var memoryBytes: Double

  var seconds: Double { rounds + links + codes + rows }

  /// Rounds of a step, with bodies that ride along with announcements and with larger ones.
  private static let roundsOfStep = (small: 8.0, large: 13.0)
  /// The most bytes to one rank that ride along.
  private static let smallBody = 65536.0

  /// - Parameters:
  ///   - ranksPerCore: ranks that share a core: codes and passes take so much longer.
  init(
    _ shape: PlanShape, _ copies: ExchangeOptions.Copies, _ wire: WireFormat, _ tuning: Tuning, ranksPerCore: Double
  ) throws(CrosspointError) {
    let traffic = try PlanTraffic(shape, copies)
    let rowBytes = Double(shape.hidden) * wire.rate / 8
    let plainBytes = Double(4 * shape.hidden)
    self.copies = "\(copies)"
    self.wire = "\(wire)"
    bytesBetween = 4 * traffic.between * rowBytes
    bytesWithin = 4 * (traffic.within * rowBytes + traffic.handed * plainBytes)
    let peers = (between: shape.ranks - shape.ranksPerNode, within: shape.ranksPerNode - 1)
    let perPeer = traffic.between * rowBytes / Double(max(1, peers.between))
    let count = perPeer < Self.smallBody ? Self.roundsOfStep.small : Self.roundsOfStep.large
    func latency(_ link: Tuning.Link?, _ peers: Int) -> Double {
      peers == 0 ? 0 : (link?.latency ?? 0) * max(1, Double(peers) / Double(link?.peers ?? 1))
    }
    rounds = count * max(latency(tuning.betweenNodes, peers.between), latency(tuning.withinNode, peers.within))
    links =
      bytesBetween * (tuning.betweenNodes?.secondsPerByte ?? 0)
      + bytesWithin * (tuning.withinNode?.secondsPerByte ?? 0)
    // fp32 that lies in shared memory is read where it lies.
    let coded = wire == .fp32 ? traffic.between : traffic.between + traffic.within
    let plain = tuning.codecs["\(WireFormat.fp32)"] ?? 0
    codes = 4 * coded * plainBytes * (tuning.codecs["\(wire)"] ?? plain) * ranksPerCore
    rows = 4 * traffic.pairs * plainBytes * plain / 2 * ranksPerCore
    memoryBytes = 2 * traffic.pairs * plainBytes + 2 * (traffic.between + traffic.within) * rowBytes
  }
}
