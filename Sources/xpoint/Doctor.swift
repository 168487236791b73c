import ArgumentParser
import CrosspointFiles
import Foundation

struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Checks this machine and says what to fix.",
    discussion: """
      Needs no mpirun. The exit code is 0 when everything that Crosspoint needs is there; warnings do not change it.

      Examples:
        xpoint doctor
        xpoint doctor --json
      """)

  @Flag(help: "Print one JSON object {\"ok\", \"checks\"} instead of text.")
  var json = false

  @Flag(help: .hidden)
  var startMpi = false

  /// One thing that was checked.
  struct Check: Encodable {
    enum Verdict: String, Encodable {
      case ok, warning, broken
    }

    var name: String
    var verdict: Verdict
    var found: String
    /// What to do about it; `nil` if nothing.
    var fix: String?

    static func ok(_ name: String, _ found: String) -> Check { Check(name: name, verdict: .ok, found: found) }
  }

  private struct Report: Encodable {
    var ok: Bool
    var checks: [Check]
  }

  func run() throws {
    if startMpi { return try Self.startMPI() }
    let checks = Self.checks()
    let broken = checks.filter { $0.verdict == .broken }
    if json {
      let report = try encodedJSON(Report(ok: broken.isEmpty, checks: checks), argument: "--json")
      print(String(decoding: report, as: UTF8.self), terminator: "")
    } else {
      let width = checks.map(\.name.count).max() ?? 0
      for check in checks {
        let name = check.name + String(repeating: " ", count: width - check.name.count)
        let verdict = check.verdict == .ok ? "ok     " : check.verdict == .warning ? "warning" : "BROKEN "
        print("\(verdict)  \(name)  \(check.found)")
        if let fix = check.fix { print(String(repeating: " ", count: 11 + width) + "fix: \(fix)") }
      }
    }
    guard broken.isEmpty else {
      throw CleanExitFailure(
        message: broken.map { "\($0.name): \($0.found): \($0.fix ?? "")" }.joined(separator: "; "))
    }
  }
}

/// A failure that is already explained on stdout.
struct CleanExitFailure: Error, CustomStringConvertible {
  var message: String
  var description: String { message }
}
