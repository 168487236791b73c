/// What a run of a program came to.
public struct Outcome: CustomStringConvertible, Sendable {
  public let exitCode: Int32
  public let output: String
  public let errors: String
  /// From the start to the end of the program.
  public let seconds: Double
  /// Processes that the program started, directly or not, and that outlived it; they were killed.
  public let left: [String]

  public var outputLines: [Substring] { output.split(separator: "\n") }
  public var errorLines: [Substring] { errors.split(separator: "\n") }
  public var lines: [Substring] { outputLines + errorLines }

  /// What a tool itself wrote on standard error, without the launcher's words.
  public func errorLines(of tool: String) -> [Substring] { errorLines.filter { $0.hasPrefix("\(tool): ") } }

  public var description: String {
    "exit code \(exitCode) after \(seconds) s, left \(left), output:\n\(output)errors:\n\(errors)"
  }
}

/// A program that could not be launched or did not end.
public struct LaunchFailure: Error, CustomStringConvertible {
  public let description: String
  public init(_ description: String) { self.description = description }
}
