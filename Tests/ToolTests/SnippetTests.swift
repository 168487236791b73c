import Foundation
import LaunchSupport
import Testing

/// Whatever Swift a document shows has been compiled, and runs.
@Suite(.serialized)
struct SnippetTests {
  @Test(arguments: Snippet.pages) func swiftOfAPageIsCompiledSource(page: String) throws {
    let compiled = Set(try Snippet.compiled().values)
    for block in Snippet.blocks(in: try Snippet.text(page)) where block.language == "swift" {
      let isCompiled = compiled.contains(block.code)
      #expect(isCompiled, "\(page): in no file of Tests:\n\(block.code)")
    }
  }

  @Test func compiledSourceIsShown() throws {
    let shown = try Set(Snippet.pages.flatMap { Snippet.blocks(in: try Snippet.text($0)).map(\.code) })
    let compiled = try Snippet.compiled()
    #expect(compiled.count > 10)
    for (name, code) in compiled {
      let isShown = shown.contains(code)
      #expect(isShown, "no page shows \(name)")
    }
  }

  /// So that nothing escapes by its fence; C and Python have tests of their own.
  @Test(arguments: Snippet.pages) func otherBlocksHoldNoSwift(page: String) throws {
    for block in Snippet.blocks(in: try Snippet.text(page)) where !["swift", "c", "python"].contains(block.language) {
      for line in block.code.split(separator: "\n") {
        let isSwift = line.contains(#/^\s*(let|var|func|import|try|extension|struct|final class) /#)
        #expect(!isSwift, "\(page): \(line)")
      }
    }
  }

  @Test func aBlockIsFoundWhateverItsForm() {
    let blocks = Snippet.blocks(in: "a\n```swift\nlet x = 1\n\nlet y = 2\n```\nb\n\n    c\n    d\n")
    #expect(blocks.map(\.language) == ["swift", ""])
    #expect(blocks.map(\.code) == ["let x = 1\n\nlet y = 2", "c\nd"])
  }

  @Test(arguments: ["using", "routing", "stages", "troubleshooting", "extending"])
  func snippetsDoWhatTheirPageSays(page: String) throws {
    let outcome = try Launch.run(Self.program, [page], limit: 60)
    #expect(outcome.exitCode == 0 && outcome.output == "\(page): all as the page says\n", "\(outcome)")
  }

  @Test(arguments: [("readme", 2), ("mpi", 2), ("groups", 4)])
  func snippetsRunOnRanksOfMPI(page: String, ranks: Int) throws {
    let outcome = try Self.mpirun(ranks, [page])
    #expect(outcome.exitCode == 0 && outcome.left.isEmpty, "\(outcome)")
    #expect(outcome.output.contains("\(page): all as the page says\n"), "\(outcome)")
  }

  @Test func theProgramPrintsTheSameSimulatedAndUnderMPI() throws {
    let simulated = try Launch.run(Self.program, [], limit: 60)
    let real = try Self.mpirun(4, ["--mpi"])
    #expect(simulated.exitCode == 0 && real.exitCode == 0, "\(simulated)\n\(real)")
    #expect(simulated.output == real.output && simulated.output.contains("loss: "), "\(simulated)\n\(real)")
  }

  /// The manifest of a package that depends on this one; building it would build everything once more.
  @Test func theManifestIsOne() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("crosspoint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(at: folder) }
    let manifest = try #require(try Snippet.compiled()["manifest"])
    try Data((manifest + "\n").utf8).write(to: folder.appendingPathComponent("Package.swift"))
    let outcome = try Launch.run(
      URL(fileURLWithPath: "/usr/bin/env"), ["swift", "package", "dump-package", "--package-path", folder.path],
      limit: 60)
    #expect(outcome.exitCode == 0 && outcome.output.contains("\"Trainer\""), "\(outcome)")
  }

  private static var program: URL {
    get throws { try Programs.product("Snippets", variable: "CROSSPOINT_SNIPPETS") }
  }

  private static func mpirun(_ ranks: Int, _ arguments: [String]) throws -> Outcome {
    try Launch.run(
      Programs.mpirun(), Programs.oversubscribe + ["-n", "\(ranks)", program.path] + arguments, limit: 60)
  }
}
