import Foundation
import LaunchSupport
import Testing

/// Whatever `mpirun` comes first on the PATH: the tool says whether it is that of the library, and which one is.
struct DoctorTests {
  @Test func whatBelongsTogetherIsPrinted() throws {
    try Self.withOwnLauncher { own in
      let outcome = try Self.doctor([own])
      #expect(outcome.exitCode == 0 && outcome.errors.isEmpty, "\(outcome)")
      func says(_ check: String, _ text: String) -> Bool {
        outcome.outputLines.contains { $0.hasPrefix("ok       \(check) ") && $0.contains(text) }
      }
      #expect(says("MPI library", "/libmpi") && says("MPI library", "for the interface of "), "\(outcome)")
      #expect(says("MPI start", "thread level serialized") && says("mpirun", "\(own)/mpirun ("), "\(outcome)")
    }
  }

  @Test(arguments: [
    "HYDRA build details:\n    Version:  4.0.2", "mpirun (Open MPI) 99.0.1",
    "Intel(R) MPI Library for Linux* OS, Version 2021.13",
  ])
  func anotherMPIsLauncherIsRefusedAndTheFittingOneNamed(words: String) throws {
    try Self.withOwnLauncher { own in
      let outcome = try Self.doctor([Self.fake, own], fake: words)
      #expect(outcome.exitCode != 0 && outcome.errorLines.count == 1, "\(outcome)")
      #expect(outcome.errors.hasPrefix("xpoint: mpirun: \(Self.fake)/mpirun is that of "), "\(outcome)")
      #expect(outcome.errors.hasSuffix(": launch with \(own)/mpirun\n"), "\(outcome)")
      let alone = try Self.doctor([Self.fake], fake: words)
      #expect(alone.exitCode != 0 && alone.errors.contains(": install the launcher of "), "\(alone)")
    }
  }

  @Test func aLauncherThatSaysNothingIsAWarning() throws {
    try Self.withOwnLauncher { own in
      let outcome = try Self.doctor([Self.fake, own], fake: "")
      #expect(outcome.exitCode == 0 && outcome.output.contains("may not be the launcher of "), "\(outcome)")
    }
  }

  @Test func underTheRightLauncherAnotherOnThePathDoesNotMatter() throws {
    let path = "\(Self.fake):\(ProcessInfo.processInfo.environment["PATH"] ?? "")"
    let outcome = try Tool.xpoint.run(
      ranks: 2, ["doctor"], environment: ["PATH": path, "CROSSPOINT_FAKE_MPIRUN": "HYDRA 4.0.2"])
    #expect(outcome.exitCode == 0, "\(outcome)")
    for rank in 0..<2 { #expect(outcome.output.contains("has started this process as rank \(rank)\n"), "\(outcome)") }
  }

  @Test func withoutALauncherItFails() throws {
    let outcome = try Self.doctor(["/nowhere"])
    #expect(outcome.exitCode != 0 && outcome.errors.contains("mpirun: not on PATH: install "), "\(outcome)")
  }

  private static let fake = Snippet.root.appendingPathComponent("Tests/FakeLauncher").path

  private static func doctor(_ path: [String], fake: String = "") throws -> Outcome {
    try Tool.xpoint.run(
      ["doctor"],
      environment: [
        "PATH": path.joined(separator: ":"), "CROSSPOINT_FAKE_MPIRUN": fake,
        // Open MPI 4 looks for ssh, also to start one rank.
        "OMPI_MCA_plm_rsh_agent": "/bin/true",
      ])
  }

  /// A folder with this library's own launcher alone.
  private static func withOwnLauncher(_ body: (String) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("crosspoint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(at: folder) }
    let launcher = try Programs.mpirun()
    // The second is what Open MPI 4 starts where there is no launcher.
    for (name, program) in [("mpirun", launcher.lastPathComponent), ("orted", "orted")] {
      try FileManager.default.createSymbolicLink(
        at: folder.appendingPathComponent(name),
        withDestinationURL: launcher.deletingLastPathComponent().appendingPathComponent(program))
    }
    try body(folder.path)
  }
}
