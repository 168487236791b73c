import Foundation
import LaunchSupport
import Testing

/// Emulated hosts take root and a kernel that lets it make network namespaces.
@Suite(.enabled(if: canEmulateHosts, "no privilege to make network namespaces"), .serialized)
struct EmulateTests {
  private static let emulate = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("launch/emulate")

  private func emulate(_ arguments: String...) throws -> Outcome {
    try Launch.run(Self.emulate, arguments, limit: 60)
  }

  private func namespaces() throws -> String {
    try Launch.run(URL(fileURLWithPath: "/usr/bin/env"), ["ip", "netns", "list"], limit: 10).output
  }

  @Test func everyHostHasItsNameAddressAndFolder() throws {
    let address = "ip -4 -o addr show veth0 | tr -s ' ' | cut -d' ' -f4"
    let lookUp = "getent hosts host1 host2 | cut -d' ' -f1 | xargs"
    let report = "echo $OMPI_COMM_WORLD_RANK $(hostname) $(\(address)) $TMPDIR $(\(lookUp))"
    let outcome = try emulate("--hosts", "2", "--ranks-per-host", "2", "--", "bash", "-c", report)
    #expect(outcome.exitCode == 0, "\(outcome)")
    let lines = outcome.outputLines.sorted().map { $0.split(separator: " ") }
    #expect(lines.map { $0[0] } == ["0", "1", "2", "3"])
    #expect(lines.map { $0[1] } == ["host1", "host1", "host2", "host2"])
    #expect(lines.map { $0[2] } == ["10.77.0.1/24", "10.77.0.1/24", "10.77.0.2/24", "10.77.0.2/24"])
    #expect(Set(lines.map { $0[3] }).count == 2)
    #expect(lines.map { $0[4...] } == Array(repeating: ["10.77.0.1", "10.77.0.2"], count: 4))
  }

  @Test func theExitCodeIsThatOfTheProgram() throws {
    #expect(try emulate("--", "bash", "-c", "exit 7").exitCode == 7)
  }

  @Test func nothingIsLeftOfARunThatWasKilled() throws {
    let launch = try Launch(Self.emulate, ["--", "bash", "-c", "echo started; sleep 60"], limit: 60)
    try launch.wait(until: { launch.output.contains("started") }, "a rank started")
    launch.signal(SIGKILL)
    usleep(100_000)
    #expect(try emulate("--", "true").exitCode == 0)
    // Its ranks have been ended by the next run, not by this test.
    #expect(try launch.wait().left.isEmpty)
    #expect(try !namespaces().contains("crosspoint-"))
  }

  @Test(arguments: [
    (["--hosts", "0"], "--hosts 0: 1 to 64"), (["--rate", "1bit"], "--rate 1bit"), (["--delay", "5"], "--delay 5"),
    (["--ranks-per-host", "x"], "--ranks-per-host x"),
  ])
  func whatCannotBeIsRefusedInOneLine(arguments: [String], message: String) throws {
    let outcome = try Launch.run(Self.emulate, arguments + ["--", "true"], limit: 10)
    #expect(outcome.exitCode == 2 && outcome.errorLines.count == 1, "\(outcome)")
    #expect(outcome.errors.contains(message))
  }
}

private let canEmulateHosts: Bool = {
  func run(_ command: String...) -> Bool {
    (try? Launch.run(URL(fileURLWithPath: "/usr/bin/env"), command, limit: 10).exitCode) == 0
  }
  let name = "crosspoint-test-\(getpid())"
  return run("ip", "netns", "add", name) && run("ip", "netns", "delete", name)
}()
