import CrosspointCompression
import CrosspointCore
import CrosspointExchange

extension ExchangeOptions {
  /// Options as one text: the names and values of the command line, for example
  /// `compression=lsh:functions=2,width=64,wire=rotated:4,copies=rank`. An empty text: the defaults.
  ///
  /// Settings are parted by commas. A part whose name is none of theirs goes on with the value before it,
  /// as `width=64` does above.
  /// - Throws: `invalidArgument` naming the setting, its value and what is possible.
  public init(named text: String) throws(CrosspointError) {
    var settings = ExchangeSettings()
    for (name, value) in try ExchangeSettings.pairs(text) { try settings.set(name, value) }
    self = try settings.options()
  }
}

extension ExchangeSettings {
  /// All names, as on the command line.
  package static let names = [
    "compression", "copies", "compensation", "wire", "wire-dispatch", "wire-combine", "wire-gradient",
    "wire-combine-backward", "wire-dispatch-backward", "within-node", "rounding-gradient", "non-finite", "agreement",
    "memory", "budget-bytes", "budget-error", "fastest", "tuning", "capacity-bytes", "seed",
  ]

  fileprivate static func pairs(_ text: String) throws(CrosspointError) -> [(name: String, value: String)] {
    var pairs: [(name: String, value: String)] = []
    for part in text.split(separator: ",", omittingEmptySubsequences: false) where !text.isEmpty {
      let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = words[0].filter { $0 != " " }
      if words.count == 2, names.contains(name) {
        guard !pairs.contains(where: { $0.name == name }) else { throw refuse(name, "it is set twice") }
        pairs.append((name, String(words[1])))
      } else if pairs.isEmpty || !pairs[pairs.count - 1].value.contains(":") {
        throw refuse("options", "'\(part)' is no setting: NAME=VALUE with one of \(names.joined(separator: ", "))")
      } else {
        pairs[pairs.count - 1].value += ",\(part)"
      }
    }
    return pairs
  }

  /// Takes one setting.
  /// - Throws: `invalidArgument` for a name that is none, or a value that it cannot have.
  package mutating func set(_ name: String, _ value: String) throws(CrosspointError) {
    func read<Value>(_ value: Value?, _ usage: String) throws(CrosspointError) -> Value {
      guard let value else { throw Self.refuse(name, "it cannot be '\(text)': \(usage)") }
      return value
    }
    let text = value
    switch name {
    case "compression": compression = try .init(named: value)
    case "copies": copies = try .init(named: value)
    case "compensation": compensation = try read(.init(value), "none, identity or lowrank:R")
    case "wire": wire = try WireFormat(named: value)
    case "wire-dispatch": wireDispatch = try WireFormat(named: value)
    case "wire-combine": wireCombine = try WireFormat(named: value)
    case "wire-gradient": wireGradient = try WireFormat(named: value)
    case "wire-combine-backward": wireCombineBackward = try WireFormat(named: value)
    case "wire-dispatch-backward": wireDispatchBackward = try WireFormat(named: value)
    case "within-node": withinNode = try read(.init(rawValue: value), "coded or plain")
    case "rounding-gradient": roundingGradient = try read(.init(rawValue: value), "nearest, stochastic or eden")
    case "non-finite": nonFinite = try read(.init(rawValue: value), "error or propagate")
    case "agreement": agreement = try read(.init(rawValue: value), "immediate or deferred")
    case "memory": memory = try read(Int(value).flatMap { $0 >= 0 ? $0 : nil }, "a number of steps, or 0")
    case "budget-bytes": budgetBytes = try read(Double(value), "a number in (0, 2]")
    case "budget-error": budgetError = try read(Double(value), "a number in (0, 1]")
    case "fastest": fastest = try read(Double(value), "a number in (0, 1]")
    case "tuning": tuning = try Tuning(path: value)
    case "capacity-bytes": capacityBytes = try read(Int(value).flatMap { $0 >= 0 ? $0 : nil }, "a number of bytes")
    case "seed": seed = try read(UInt64(value), "a whole number from 0")
    default: throw Self.refuse("options", "'\(name)' is no setting: one of \(Self.names.joined(separator: ", "))")
    }
  }

  private static func refuse(_ argument: String, _ message: String) -> CrosspointError {
    CrosspointError(.invalidArgument, operation: "ExchangeOptions", argument: argument, message)
  }
}
