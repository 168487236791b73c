/// The textual form: `lsh`, or `lsh:functions=2,width=64,rounds=3,centred=true` with any of the four settings.
extension ClusterOptions: LosslessStringConvertible {
  public init?(_ text: String) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts[0] == "lsh" else { return nil }
    self.init()
    guard parts.count == 2 else { return }
    for setting in parts[1].split(separator: ",", omittingEmptySubsequences: false) {
      let pair = setting.split(separator: "=", omittingEmptySubsequences: false)
      guard pair.count == 2 else { return nil }
      switch (pair[0], Int(pair[1]), Bool(String(pair[1]))) {
      case ("functions", let value?, _): functions = value
      case ("width", let value?, _): width = value
      case ("rounds", let value?, _): rounds = value
      case ("centred", _, let value?): centred = value
      default: return nil
      }
    }
  }

  public var description: String {
    let widthText = width.map { ",width=\($0)" } ?? ""
    return "lsh:functions=\(functions)\(widthText),rounds=\(rounds),centred=\(centred)"
  }
}
