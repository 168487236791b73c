import ArgumentParser

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension ParsableCommand {
  /// Runs a tool: exit code 0 only on success, and an error is one line on stderr that says what to do.
  public static func runTool() -> Never {
    let name = configuration.commandName ?? _commandName
    do {
      var command = try parseAsRoot()
      try command.run()
      leave(EXIT_SUCCESS)
    } catch {
      let code = exitCode(for: error)
      // Help and version requests arrive as errors, too, and go where they belong.
      guard !code.isSuccess else { exit(withError: error) }
      let lines = message(for: error).split(whereSeparator: \.isNewline)
      let help = code == .validationFailure ? " (see \(helpfulCommand) --help)" : ""
      let text = Array("\(name): \(lines.joined(separator: " "))\(help)\n".utf8)
      _ = write(STDERR_FILENO, text, text.count)
      leave(code.rawValue)
    }
  }
}

extension ParsableCommand {
  /// The command and subcommands that were asked for, as far as they exist.
  private static var helpfulCommand: String {
    func name(_ command: any ParsableCommand.Type) -> String {
      command.configuration.commandName ?? command._commandName
    }
    var command: any ParsableCommand.Type = self
    var path = name(self)
    for argument in CommandLine.arguments.dropFirst() {
      guard let next = command.configuration.subcommands.first(where: { name($0) == argument }) else { break }
      command = next
      path += " " + argument
    }
    return path
  }
}

/// The C library's `exit`, which ParsableCommand's own would hide.
private func leave(_ code: Int32) -> Never { exit(code) }
