import Foundation

/// Launches the rank program under mpirun, in processes of its own: no MPI runs in the test process.
enum RankProgram {
  /// What a launch came to.
  struct Outcome: CustomStringConvertible {
    let exitCode: Int32
    /// Standard output and standard error.
    let output: String

    var lines: [Substring] { output.split(separator: "\n") }
    var description: String { "exit code \(exitCode), output:\n\(output)" }
  }

  struct LaunchFailure: Error, CustomStringConvertible {
    let description: String
  }

  /// What CROSSPOINT_RANK_PROGRAM names; else the one beside the test bundle, where SwiftPM puts all products of a build.
  static func executable() throws -> URL {
    if let path = ProcessInfo.processInfo.environment["CROSSPOINT_RANK_PROGRAM"] {
      guard FileManager.default.isExecutableFile(atPath: path) else {
        throw LaunchFailure(description: "CROSSPOINT_RANK_PROGRAM names \(path), which is no program")
      }
      return URL(fileURLWithPath: path)
    }
    let linked = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let own = linked ?? CommandLine.arguments[0]
    let candidate = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("RankProgram")
    guard FileManager.default.isExecutableFile(atPath: candidate.path) else {
      throw LaunchFailure(description: "\(candidate.path) is missing: `swift build --product RankProgram` makes it")
    }
    return candidate
  }

  /// Open MPI's own launcher where MPICH is installed beside it.
  static func mpirun() throws -> URL {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    for name in ["mpirun.openmpi", "mpirun"] {
      for folder in folders {
        let candidate = URL(fileURLWithPath: String(folder)).appendingPathComponent(name)
        if FileManager.default.isExecutableFile(atPath: candidate.path) { return candidate }
      }
    }
    throw LaunchFailure(description: "mpirun is missing: install openmpi-bin, or put it on the PATH")
  }

  /// Runs a scenario on so many ranks; ends it after `seconds`, for which mpirun says `time limit`.
  ///
  /// - Parameter sharedMemory: the folder for the files of MPI's shared memory, instead of /dev/shm itself.
  static func launch(
    _ scenario: String, ranks: Int, sharedMemory: URL? = nil, seconds: Int = 120
  ) throws -> Outcome {
    var arguments = ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "--timeout", "\(seconds)"]
    if let sharedMemory {
      arguments += ["--mca", "btl_vader_backing_directory", sharedMemory.path]
      arguments += ["--mca", "osc_sm_backing_directory", sharedMemory.path]
    }
    arguments += ["-n", "\(ranks)", try executable().path, scenario]
    return try run(mpirun(), arguments, seconds: seconds + 15)
  }

  static func run(_ program: URL, _ arguments: [String], seconds: Int) throws -> Outcome {
    // A file, unlike a pipe, takes any amount of output without a reader.
    let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try Data().write(to: file)
    defer { try? FileManager.default.removeItem(at: file) }
    let handle = try FileHandle(forWritingTo: file)
    defer { try? handle.close() }

    let process = Process()
    process.executableURL = program
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = handle
    process.standardError = handle
    let allowRoot = ["OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"]
    process.environment = ProcessInfo.processInfo.environment.merging(allowRoot) { _, new in new }
    try process.run()
    let limit = Date().addingTimeInterval(Double(seconds))
    while process.isRunning {
      if Date() > limit {
        kill(process.processIdentifier, SIGKILL)
        throw LaunchFailure(description: "\(program.path) \(arguments) did not end within \(seconds) seconds")
      }
      Thread.sleep(forTimeInterval: 0.02)
    }
    let output = try String(contentsOf: file, encoding: .utf8)
    return Outcome(exitCode: process.terminationStatus, output: output)
  }
}
