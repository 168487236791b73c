#if compiler(>=6.3)
  import Foundation
  import LaunchSupport
  import Testing

  /// The library for C: its examples are compiled and run, and its interface is the one that was committed.
  @Suite(.serialized)
  struct CLibraryTests {
    @Test func simulatedRanksPrintWhatThePageShows() throws {
      let outcome = try Example.use("simulated.c") { program in try Launch.run(program, [], limit: 60) }
      #expect(outcome.exitCode == 0, "\(outcome)")
      let page = Snippet.blocks(in: try Snippet.text("docs/c.md")).map(\.code)
      #expect(page.contains(outcome.output.trimmingCharacters(in: .newlines)), "\(outcome)")
    }

    @Test func codeOfThePageIsThatOfTheExamples() throws {
      func lines(_ text: String) -> String {
        text.split(separator: "\n").map { $0.drop { $0 == " " } }.filter { !$0.isEmpty }.joined(separator: "\n")
      }
      let examples = try ["simulated.c", "mpi.c"].map { name in
        lines(try String(contentsOf: Example.folder.appendingPathComponent(name), encoding: .utf8))
      }
      for page in Snippet.pages {
        for block in Snippet.blocks(in: try Snippet.text(page)) where block.language == "c" {
          #expect(examples.contains { $0.contains(lines(block.code)) }, "\(page): in no example:\n\(block.code)")
        }
      }
    }

    @Test(arguments: [1, 3]) func ranksOfMPIGetTheirOwnRowsBack(ranks: Int) throws {
      let outcome = try Example.use("mpi.c", compiler: "mpicc") { program in
        try Launch.run(
          Programs.mpirun(), Programs.oversubscribe + ["-n", "\(ranks)", program.path], limit: 60)
      }
      #expect(outcome.exitCode == 0 && outcome.left.isEmpty, "\(outcome)")
      #expect(outcome.outputLines.filter { $0.hasSuffix("the same bits") }.count == ranks, "\(outcome)")
    }

    @Test func twoCommunicatorsAtOnceKeepApart() throws {
      let outcome = try Example.use("communicators.c", compiler: "mpicc") { program in
        try Launch.run(
          Programs.mpirun(), Programs.oversubscribe + ["-n", "4", program.path], limit: 60)
      }
      #expect(outcome.exitCode == 0 && outcome.left.isEmpty, "\(outcome)")
      #expect(outcome.outputLines.sorted() == (0..<4).map { "rank \($0): the same bits" }, "\(outcome)")
    }

    @Test func anErrorOfOptionsEndsTheJobInOneLine() throws {
      let outcome = try Example.use("mpi.c", compiler: "mpicc") { program in
        try Launch.run(
          Programs.mpirun(), Programs.oversubscribe + ["-n", "2", program.path, "wire=bf17"], limit: 60)
      }
      let ours = outcome.errorLines.filter { $0.contains("bf17") }
      #expect(ours == ["rank 0: ExchangeOptions: invalidArgument: wire: 'bf17' is no wire format: bf16?"], "\(outcome)")
      #expect(outcome.exitCode == 1 && outcome.left.isEmpty, "\(outcome)")
    }

    @Test(arguments: ["killed", "ends"]) func aLostRankEndsTheJob(how: String) throws {
      let outcome = try Example.use("lost.c", compiler: "mpicc") { program in
        try Launch.run(
          Programs.mpirun(), Programs.oversubscribe + ["-n", "3", program.path, how], limit: 60)
      }
      #expect(outcome.exitCode != 0 && outcome.left.isEmpty && outcome.output.isEmpty, "\(outcome)")
      let isTold = outcome.errorLines.contains { $0.contains(how == "ends" ? "the data are at an end" : "rank 1") }
      #expect(isTold, "\(outcome)")
    }

    @Test func whatTheHeaderSaysHolds() throws {
      let outcome = try Example.use("checks.c") { program in try Launch.run(program, [], limit: 120) }
      #expect(outcome.exitCode == 0 && outcome.output == "every claim holds\n", "\(outcome)")
    }

    /// Programs that were compiled go on running with later versions.
    @Test func theInterfaceIsTheCommittedOne() throws {
      let committed = try String(contentsOf: Example.folder.appendingPathComponent("interface.txt"), encoding: .utf8)
      let layout = try Example.use("layout.c") { program in try Launch.run(program, [], limit: 10).output }
      let found = layout + (try Example.symbols().map { "symbol \($0)\n" }.joined())
      #expect(found == committed, "interface.txt should be:\n\(found)")
    }

    /// What a program asks for at its start is the file that is installed, named after the interface.
    @Test(.enabled(if: Example.prefix != nil)) func theInstalledLibraryIsNamedAfterItsInterface() throws {
      let prefix = try #require(Example.prefix)
      let file = prefix.appendingPathComponent("lib/libcrosspoint.so").resolvingSymlinksInPath()
      let header = try String(contentsOf: prefix.appendingPathComponent("include/crosspoint.h"), encoding: .utf8)
      let name = file.lastPathComponent
      #expect(header.contains("#define CROSSPOINT_INTERFACE \(name.split(separator: ".").last ?? "")\n"), "\(name)")
      let outcome = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"), ["readelf", "-d", file.path], limit: 10)
      #expect(outcome.output.contains("Library soname: [\(name)]"), "\(outcome)")
    }

    /// C++ reads it too.
    @Test func theHeaderIsCPlusPlus() throws {
      let text = "#include <crosspoint.h>\nint main() { return CROSSPOINT_INIT(crosspoint_rows).version - 1; }\n"
      let outcome = try Example.use("header.cpp", compiler: "c++", text: text, standard: "c++11") { program in
        try Launch.run(program, [], limit: 10)
      }
      #expect(outcome.exitCode == 0, "\(outcome)")
    }
  }

  /// A program of Tests/CExamples.
  private enum Example {
    static let folder = Snippet.root.appendingPathComponent("Tests/CExamples")
    /// Where `launch/install` has put the library, by CROSSPOINT_PREFIX; else that of this build is used.
    static let prefix = ProcessInfo.processInfo.environment["CROSSPOINT_PREFIX"].map { URL(fileURLWithPath: $0) }

    private static var library: URL {
      get throws {
        if let prefix { return prefix.appendingPathComponent("lib") }
        return try Programs.product("RankProgram", variable: "").deletingLastPathComponent()
      }
    }

    /// Compiles it without a warning, and hands over the program.
    static func use<Result>(
      _ name: String, compiler: String = "cc", text: String? = nil, standard: String = "c11",
      _ body: (URL) throws -> Result
    ) throws -> Result {
      let work = FileManager.default.temporaryDirectory.appendingPathComponent("crosspoint-\(UUID().uuidString)")
      try FileManager.default.createDirectory(at: work, withIntermediateDirectories: false)
      defer { try? FileManager.default.removeItem(at: work) }
      var source = folder.appendingPathComponent(name)
      if let text {
        source = work.appendingPathComponent(name)
        try Data(text.utf8).write(to: source)
      }
      let program = work.appendingPathComponent("program")
      let include =
        prefix?.appendingPathComponent("include") ?? Snippet.root.appendingPathComponent("Sources/CCrosspoint")
      let library = try library.path
      let outcome = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"),
        [
          compiler, "-std=\(standard)", "-Wall", "-Wextra", "-Werror", source.path, "-o", program.path,
          "-I\(include.path)", "-L\(library)", "-Wl,-rpath,\(library)", "-lcrosspoint", "-lpthread", "-lm",
        ], limit: 60)
      guard outcome.exitCode == 0 else { throw LaunchFailure("\(name): \(outcome)") }
      return try body(program)
    }

    /// What the library shows to a linker; of the installed one everything.
    static func symbols() throws -> [String] {
      let file = try library.appendingPathComponent("libcrosspoint.so").path
      let outcome = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"), ["nm", "-D", "--defined-only", file], limit: 10)
      return outcome.outputLines.compactMap { line in
        let words = line.split(separator: " ")
        guard words.count == 3, words[1] == words[1].uppercased() else { return nil }
        return prefix != nil || words[2].hasPrefix("crosspoint_") ? String(words[2]) : nil
      }.sorted()
    }
  }
#endif
