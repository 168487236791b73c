import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointTokens

/// What can be chosen about an exchange by name: `--wire bf16` on a command line, `wire=bf16` in a text. In the order in which
/// they are applied: what is said of one transfer holds over what is said of several.
package enum ExchangeSetting: String, CaseIterable, Sendable {
  case rows, compression, copies, compensation, wire
  case wireDispatch = "wire-dispatch"
  case wireCombine = "wire-combine"
  case wireGradient = "wire-gradient"
  case wireCombineBackward = "wire-combine-backward"
  case wireDispatchBackward = "wire-dispatch-backward"
  case withinNode = "within-node"
  case nonFinite = "non-finite"
  case agreement, memory
  case budgetBytes = "budget-bytes"
  case budgetError = "budget-error"
  case fastest, tuning
  case capacityBytes = "capacity-bytes"
  case seed

  static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }
}

extension ExchangeOptions {
  /// Options as one text: the names and values of the command line, for example
  /// `compression=lsh:functions=2,width=64,wire=rotated:4,copies=rank`. An empty text: the defaults.
  ///
  /// Settings are parted by commas. A part whose name is none of theirs goes on with the value before it,
  /// as `width=64` does above.
  /// - Throws: `invalidArgument` naming the setting, its value and what is possible.
  public init(named text: String) throws(CrosspointError) {
    var (values, last) = ([ExchangeSetting: String](), ExchangeSetting?.none)
    for part in text.split(separator: ",", omittingEmptySubsequences: false) where !text.isEmpty {
      let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if words.count == 2, let setting = ExchangeSetting(rawValue: words[0].filter { $0 != " " }) {
        guard values[setting] == nil else { throw Self.refuse(setting, "it is set twice") }
        values[setting] = String(words[1])
        last = setting
      } else if let last, values[last]!.contains(":") {
        values[last]! += ",\(part)"
      } else {
        throw CrosspointError(
          .invalidArgument, operation: "ExchangeOptions", argument: "options",
          "'\(part)' is no setting: NAME=VALUE with one of \(ExchangeSetting.names)")
      }
    }
    try self.init(values)
  }

  /// The defaults, but for the settings that are given.
  /// - Throws: `invalidArgument` naming the setting, its value and what is possible.
  package init(_ values: [ExchangeSetting: String]) throws(CrosspointError) {
    self.init()
    for setting in ExchangeSetting.allCases {
      guard let value = values[setting] else { continue }
      do throws(CrosspointError) { try set(setting, value, among: values) } catch {
        throw CrosspointError(error.code, operation: "ExchangeOptions", argument: setting.rawValue, error.message)
      }
    }
  }

  private mutating func set(
    _ setting: ExchangeSetting, _ text: String, among values: [ExchangeSetting: String]
  ) throws(CrosspointError) {
    func read<Value>(_ value: Value?, _ usage: String) throws(CrosspointError) -> Value {
      guard let value else { throw Self.refuse(setting, "it cannot be '\(text)': \(usage)") }
      return value
    }
    func number(_ range: String) throws(CrosspointError) -> Double { try read(Double(text), "a number in \(range)") }
    func chosen(_ policy: Policy) throws(CrosspointError) -> Policy {
      let policies = [ExchangeSetting.budgetBytes, .budgetError, .fastest].filter { values[$0] != nil }
      guard policies.count == 1 else {
        throw Self.refuse(setting, "it and \(policies[1].rawValue) exclude one another: give one")
      }
      try policy.validate()
      return policy
    }
    switch setting {
    case .rows: rows = try read(.init(rawValue: text), "fp32 or bf16")
    case .compression: compression = try .init(named: text)
    case .copies: copies = try .init(named: text)
    case .compensation: compensation = try read(.init(text), "none, identity or lowrank:R")
    case .wire: wire = .init(try WireFormat(named: text))
    case .wireDispatch: wire.dispatch = try WireFormat(named: text)
    case .wireCombine: wire.combine = try WireFormat(named: text)
    case .wireGradient:
      wire.combineBackward = try WireFormat(named: text)
      wire.dispatchBackward = wire.combineBackward
    case .wireCombineBackward: wire.combineBackward = try WireFormat(named: text)
    case .wireDispatchBackward: wire.dispatchBackward = try WireFormat(named: text)
    case .withinNode: withinNode = try read(.init(rawValue: text), "coded or plain")
    case .nonFinite: nonFinite = try read(.init(rawValue: text), "error or propagate")
    case .agreement: agreement = try read(.init(rawValue: text), "immediate or deferred")
    case .memory: memory = try read(Int(text).flatMap { $0 >= 0 ? $0 : nil }, "a number of steps, or 0")
    case .budgetBytes: policy = try chosen(.budget(bytes: number("(0, 2]")))
    case .budgetError: policy = try chosen(.budget(relativeError: number("(0, 1]")))
    case .fastest: policy = try chosen(.fastest(relativeError: number("(0, 1]")))
    case .tuning:
      guard let error = values[.fastest].flatMap(Double.init) else { throw Self.refuse(setting, "it needs fastest") }
      policy = .fastest(relativeError: error, tuning: try Tuning(path: text))
    case .capacityBytes: capacityBytes = try read(Int(text).flatMap { $0 >= 0 ? $0 : nil }, "a number of bytes")
    case .seed: seed = try read(UInt64(text), "a whole number from 0")
    }
  }

  private static func refuse(_ setting: ExchangeSetting, _ message: String) -> CrosspointError {
    CrosspointError(.invalidArgument, operation: "ExchangeOptions", argument: setting.rawValue, message)
  }
}
