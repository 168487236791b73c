import Foundation
import LaunchSupport
import Testing

/// Every option of every command of `xpoint`, as its own parser lists them, with numbers at the ends of what there is.
@Suite(.serialized)
struct ExtremeOptionTests {
  private static let values = ["0", "\(Int.max)", "\(Int.min)", "nan"]

  /// What makes each command small.
  private static let commands: [(path: [String], arguments: [String])] = [
    (
      ["bench", "exchange"],
      "--simulated 2 --tokens 8 --hidden 8 --experts 4 --iterations 1 --warmup 1".components(separatedBy: " ")
    ),
    (
      ["bench", "waves"],
      "--simulated 2 --tokens 8 --hidden 8 --experts 4 --iterations 1 --warmup 1".components(separatedBy: " ")
    ),
    (
      ["bench", "alltoall"],
      "--min-bytes 16 --max-bytes 64 --iterations 1 --warmup 1".components(separatedBy: " ")
    ),
    (["bench", "hash"], "--rows 8 --hidden 8 --iterations 1".components(separatedBy: " ")),
    (["bench", "codec"], "--rows 8 --hidden 8 --iterations 1 --wire bf16".components(separatedBy: " ")),
    (["roundtrip"], []),
  ]

  /// The limit of memory is far above what the small commands need, and far below what the numbers ask for.
  @Test(arguments: Self.commands)
  func anExtremeNumberIsTakenOrRefusedInOneLine(_ command: (path: [String], arguments: [String])) throws {
    try TinyRun.use { run in
      var arguments = command.path + command.arguments
      if command.path == ["roundtrip"] {
        try Self.rows.write(to: URL(fileURLWithPath: run.path("X.npy")))
        arguments += ["--input", run.path("X.npy"), "--output", run.path("Y.npy")]
      }
      let options = try Option.all(of: .xpoint, command.path)
      #expect(options.count > 4)
      for option in options where !option.isFlag {
        for value in Self.values {
          let script = "ulimit -v 8000000 && exec \"$0\" \"$@\""
          let outcome = try Launch.run(
            URL(fileURLWithPath: "/bin/sh"),
            ["-c", script, Tool.xpoint.executable().path] + arguments + ["--\(option.name)=\(value)"], limit: 60)
          #expect([0, 1, 64].contains(outcome.exitCode), "\(option)=\(value): \(outcome)")
          #expect(outcome.errorLines.count == (outcome.exitCode == 0 ? 0 : 1), "\(option)=\(value): \(outcome)")
        }
      }
    }
  }

  /// Four rows of two floats, all zero.
  private static var rows: Data {
    var header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2), }"
    header += String(repeating: " ", count: 117 - header.count) + "\n"
    return Data([0x93] + Array("NUMPY".utf8) + [1, 0, 118, 0] + Array(header.utf8) + [UInt8](repeating: 0, count: 32))
  }
}
