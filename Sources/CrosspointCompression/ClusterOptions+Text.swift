/// The textual form: `lsh-moe`, `lsh`, or `lsh:functions=2,width=64,centred=true,rate=0.12,refinements=1` with any of the
/// settings.
extension ClusterOptions: LosslessStringConvertible {
  public init?(_ text: String) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    if text == "lsh-moe" {
      self = .lshMoE
      return
    }
    guard parts[0] == "lsh" else { return nil }
    self.init()
    guard parts.count == 2 else { return }
    for setting in parts[1].split(separator: ",", omittingEmptySubsequences: false) {
      let pair = setting.split(separator: "=", omittingEmptySubsequences: false)
      guard pair.count == 2 else { return nil }
      guard read(String(pair[0]), String(pair[1])) else { return nil }
    }
  }

  /// Takes one setting; false for a key or value that is none.
  private mutating func read(_ key: String, _ value: String) -> Bool {
    switch (key, Int(value), Float(value), Bool(value)) {
    case ("functions", let value?, _, _): functions = value
    case ("width", let value?, _, _): width = value
    case ("centred", _, _, let value?): centred = value
    case ("rate", _, let value?, _): rate = value
    case ("refinements", let value?, _, _): refinements = value
    default: return false
    }
    return true
  }

  public var description: String {
    if self == .lshMoE { return "lsh-moe" }
    var text = "lsh:functions=\(functions)"
    if let width { text += ",width=\(width)" }
    text += ",centred=\(centred)"
    if let rate { text += ",rate=\(rate)" }
    if refinements > 0 { text += ",refinements=\(refinements)" }
    return text
  }
}
