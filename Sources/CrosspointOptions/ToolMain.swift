import ArgumentParser

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension ParsableCommand {
  /// Runs a tool: exit code 0 only on success, and an error is one line on stderr that says what to do.
  public static func runTool() -> Never {
    do {
      var command = try parseAsRoot()
      try command.run()
      leave(EXIT_SUCCESS)
    } catch {
      let code = exitCode(for: error)
      // Help and version requests arrive as errors, too, and go where they belong.
      guard !code.isSuccess else { exit(withError: error) }
      let text = message(for: error).split(separator: "\n").map { $0.trimmingPrefix { $0 == " " } }.joined(
        separator: " ")
      if !text.isEmpty {
        let help = code == .validationFailure ? " (see \(configuration.commandName ?? _commandName) --help)" : ""
        fputs("\(configuration.commandName ?? _commandName): \(text)\(help)\n", stderr)
      }
      leave(code.rawValue)
    }
  }
}

/// The C library's `exit`, which ParsableCommand's own would hide.
private func leave(_ code: Int32) -> Never { exit(code) }
