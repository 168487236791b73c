import CrosspointCore

/// The textual form: `lsh-moe`, `lsh`, or `lsh:functions=2,width=64,centred=true,rate=0.12,refinements=1` with any of the
/// settings.
extension ClusterOptions {
  private static let settings = ["functions", "width", "centred", "rate", "refinements"]

  /// The options with this text.
  /// - Throws: `invalidArgument` for a text that names none, with what may have been meant.
  package init(named text: String) throws(CrosspointError) {
    func refuse(_ message: String) -> CrosspointError {
      CrosspointError(.invalidArgument, operation: "ClusterOptions", argument: "compression", "'\(text)': \(message)")
    }
    if text == "lsh-moe" {
      self = .lshMoE
      return
    }
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts[0] == "lsh" else { throw refuse("off, lsh-moe, lsh or lsh:SETTING=VALUE,…") }
    self.init()
    guard parts.count == 2 else { return }
    for setting in parts[1].split(separator: ",", omittingEmptySubsequences: false) {
      let pair = setting.split(separator: "=", omittingEmptySubsequences: false)
      guard pair.count == 2, Self.settings.contains(String(pair[0])) else {
        let near = Self.settings.first { setting.count > 2 && $0.hasPrefix(setting.prefix(3)) }
        let meant = near.map { "\($0)=VALUE?" } ?? Self.settings.joined(separator: ", ")
        throw refuse("'\(setting)' is no setting: \(meant)")
      }
      guard read(String(pair[0]), String(pair[1])) else { throw refuse("\(pair[0]) cannot be '\(pair[1])'") }
    }
  }

  /// Takes one setting; false for a value that it cannot have.
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

  package var text: String {
    if self == .lshMoE { return "lsh-moe" }
    var text = "lsh:functions=\(functions)"
    if let width { text += ",width=\(width)" }
    text += ",centred=\(centred)"
    if let rate { text += ",rate=\(rate)" }
    if refinements > 0 { text += ",refinements=\(refinements)" }
    return text
  }
}
