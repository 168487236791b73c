import Foundation
import LaunchSupport

/// An option of a tool, as its parser lists it with `--experimental-dump-help`.
struct Option: CustomStringConvertible {
  let name: String
  let isFlag: Bool
  let value: String?

  var description: String { "--" + name }

  /// Those of a tool's command, named by its path, for example `["bench", "hash"]`.
  static func all(of tool: Tool, _ path: [String]) throws -> [Option] {
    struct Help: Decodable {
      struct Command: Decodable {
        let commandName: String
        let subcommands: [Command]?
        let arguments: [Argument]?
      }
      struct Argument: Decodable {
        struct Name: Decodable { let name: String }
        let kind: String
        let names: [Name]?
        let defaultValue: String?
      }
      let command: Command
    }
    let outcome = try tool.run(["--experimental-dump-help"])
    var command = try JSONDecoder().decode(Help.self, from: Data(outcome.output.utf8)).command
    for name in path {
      guard let next = command.subcommands?.first(where: { $0.commandName == name }) else {
        throw LaunchFailure("\(tool.rawValue) has no command \(path)")
      }
      command = next
    }
    return (command.arguments ?? []).compactMap { argument in
      guard let name = argument.names?.last?.name, name != "help", name != "version" else { return nil }
      return Option(name: name, isFlag: argument.kind == "flag", value: argument.defaultValue)
    }
  }
}
