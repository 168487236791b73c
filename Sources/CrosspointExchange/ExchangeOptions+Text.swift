import CrosspointCompression

/// The textual form of a compression: what tools take and summaries print.
extension ExchangeOptions.Compression: LosslessStringConvertible {
  /// `off`, `lsh-moe`, or `lsh` with settings as ``ClusterOptions`` reads them.
  public init?(_ text: String) {
    if text == "off" {
      self = .off
      return
    }
    guard let options = ClusterOptions(text) else { return nil }
    self = .crossPolytope(options)
  }

  public var description: String {
    switch self {
    case .off: "off"
    case .crossPolytope(let options): "\(options)"
    }
  }
}
