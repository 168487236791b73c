import ArgumentParser
import Crosspoint
import CrosspointFiles

/// Options that are declared once, as arguments of the command line. What ranks compare, checkpoints record and summaries
/// print follows from the declarations.
package protocol CommandLineOptions: ParsableArguments, Sendable {
  /// The defaults: an empty command line, parsed once. `init()` alone gives options that cannot be read.
  static var standard: Self { get }
}

extension CommandLineOptions {
  /// Every option with its value, as the command line writes them: `("expert-width", "512")`; `none` for one that is not
  /// given.
  var record: [(key: String, value: String)] {
    Mirror(reflecting: self).children.compactMap { child in
      (child.value as? any RecordedOption).map { (Self.key(child.label ?? ""), $0.text) }
    }
  }

  /// The options that a record says.
  /// - Throws: `file` naming the first option that it does not have, or has no value of.
  init(path: String, _ record: [String: String]) throws(CrosspointError) {
    var arguments: [String] = []
    for child in Mirror(reflecting: Self.standard).children {
      guard let option = child.value as? any RecordedOption else { continue }
      let key = Self.key(child.label ?? "")
      guard let value = record[key] else { throw fileError("checkpoint", path, "does not say its \(key)") }
      let argument = option.isFlag ? "--\(key)" : "--\(key)=\(value)"
      guard value != (option.isFlag ? "false" : "none") else { continue }
      guard !option.isFlag || value == "true", (try? Self.parse([argument])) != nil else {
        throw CrosspointError(.file, operation: "checkpoint", argument: key, "\(value) is no value for it")
      }
      arguments.append(argument)
    }
    do { self = try Self.parse(arguments) } catch { preconditionFailure("\(error) in \(arguments)") }
  }

  /// `_expertWidth` → `expert-width`.
  private static func key(_ property: String) -> String {
    property.dropFirst().map { $0.isUppercase ? "-" + $0.lowercased() : String($0) }.joined()
  }
}

/// What a property wrapper of the command line holds, as a text.
private protocol RecordedOption {
  var text: String { get }
  var isFlag: Bool { get }
}

extension Option: RecordedOption {
  var isFlag: Bool { false }
  var text: String {
    if let list = wrappedValue as? [Int] { return list.map(String.init).joined(separator: ",") }
    let mirror = Mirror(reflecting: wrappedValue)
    guard mirror.displayStyle == .optional else { return "\(wrappedValue)" }
    return mirror.children.first.map { "\($0.value)" } ?? "none"
  }
}

extension Flag: RecordedOption {
  var isFlag: Bool { true }
  var text: String { "\(wrappedValue)" }
}
