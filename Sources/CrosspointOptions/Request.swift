import ArgumentParser

/// What the command line asks for.
enum Request {
  case command(any ParsableCommand)
  /// Help, the version, a completion script: a text.
  case text(String)
  /// Something that cannot be understood, in one line, and the exit code.
  case mistake(String, ExitCode)

  init(of tool: (some ParsableCommand).Type) {
    do {
      self = .command(try tool.parseAsRoot())
    } catch {
      let code = tool.exitCode(for: error)
      self = code.isSuccess ? .text(tool.fullMessage(for: error)) : .mistake(tool.line(for: error), code)
    }
  }

  /// How long a rank waits for the others.
  var deadline: Duration {
    if case .command(let command as any RankCommand) = self { command.deadline } else { .seconds(60) }
  }

  /// What all ranks must ask for alike.
  var name: String {
    switch self {
    case .command(let command): type(of: command).name
    case .text: "a text"
    case .mistake: "nothing"
    }
  }
}

extension ParsableCommand {
  static var name: String { configuration.commandName ?? _commandName }

  /// An error in one line that says what to do.
  static func line(for error: any Error) -> String {
    let lines = message(for: error).split(whereSeparator: \.isNewline)
    let help = exitCode(for: error) == .validationFailure ? " (see \(helpfulCommand) --help)" : ""
    return lines.joined(separator: " ") + help
  }

  /// The command and subcommands that were asked for, as far as they exist.
  private static var helpfulCommand: String {
    var command: any ParsableCommand.Type = self
    var path = name
    for argument in CommandLine.arguments.dropFirst() {
      guard let next = command.configuration.subcommands.first(where: { $0.name == argument }) else { break }
      command = next
      path += " " + argument
    }
    return path
  }
}
