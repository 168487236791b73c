import Foundation

/// A program that runs in a process of its own, with all that it starts.
///
/// Every process of a launch has a mark in its environment, so that those of one rank are found, and none is left behind.
/// It works in a folder of its own, which goes with the launch: what a program writes to a relative path is gone too.
public final class Launch {
  private static let mark = "CROSSPOINT_LAUNCH"

  private let child: ChildProcess
  private let command: String
  private let mark = "\(Launch.mark)=\(UUID().uuidString)"
  private let folder: URL
  private let start = ContinuousClock.now
  private let limit: Double

  /// - Parameters:
  ///   - limit: seconds after which ``wait()`` ends it.
  ///   - environment: variables beside those of this process.
  public init(_ program: URL, _ arguments: [String], limit: Double, environment: [String: String] = [:]) throws {
    self.limit = limit
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("crosspoint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    let work = folder.appendingPathComponent("work")
    try FileManager.default.createDirectory(at: work, withIntermediateDirectories: false)
    let parts = mark.split(separator: "=").map(String.init)
    let ours = [
      "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OPENBLAS_NUM_THREADS": "1",
      "SWIFT_BACKTRACE": "enable=no", parts[0]: parts[1],
    ]
    command = ([program.path] + arguments).joined(separator: " ")
    child = try ChildProcess(
      program.path, arguments,
      environment: ProcessInfo.processInfo.environment
        .merging(ours) { _, new in new }.merging(environment) { _, new in new },
      output: folder.appendingPathComponent("output").path, errors: folder.appendingPathComponent("errors").path,
      folder: work.path)
  }

  deinit {
    if child.isRunning { endAll() }
    try? FileManager.default.removeItem(at: folder)
  }

  /// Runs a program to its end.
  public static func run(
    _ program: URL, _ arguments: [String], limit: Double, environment: [String: String] = [:]
  ) throws -> Outcome {
    try Launch(program, arguments, limit: limit, environment: environment).wait()
  }

  /// Sends the program itself a signal.
  public func signal(_ number: Int32) { kill(child.id, number) }

  /// The process of the program itself.
  public var process: Int32 { child.id }

  /// The process of an MPI rank, once it runs.
  public func process(ofRank rank: Int) -> Int32? {
    processes { $0.contains("OMPI_COMM_WORLD_RANK=\(rank)") }.first
  }

  /// What the program has written on standard output so far.
  public var output: String { text("output") }
  public var errors: String { text("errors") }

  public var isRunning: Bool { child.isRunning }

  /// Waits until a condition holds, for example that a rank has started or a line was written.
  /// - Throws: if the program ends before, or the limit passes.
  public func wait(until condition: () throws -> Bool, _ what: String) throws {
    while try !condition() {
      guard isRunning else { throw LaunchFailure("ended before \(what): \(try wait())") }
      guard seconds < limit else {
        endAll()
        throw LaunchFailure("\(what): not within \(limit) seconds\n\(output)\(errors)")
      }
      Thread.sleep(forTimeInterval: 0.005)
    }
  }

  /// Waits for the end.
  /// - Throws: ``LaunchFailure`` if the limit passes, after ending every process of the launch.
  public func wait() throws -> Outcome {
    while child.isRunning {
      guard seconds < limit else {
        endAll()
        throw LaunchFailure(
          "\(command) did not end within \(limit) seconds\n" + output + errors)
      }
      Thread.sleep(forTimeInterval: 0.005)
    }
    let seconds = seconds
    // A launcher may end a moment before its last child has gone.
    var left = processes()
    for _ in 0..<100 where !left.isEmpty {
      Thread.sleep(forTimeInterval: 0.01)
      left = processes()
    }
    let names = left.map { "\($0) \(Self.words(of: $0, "cmdline").joined(separator: " "))" }
    endAll()
    return Outcome(
      exitCode: child.code, output: output, errors: errors, seconds: seconds, left: names)
  }

  private var seconds: Double {
    let (seconds, attoseconds) = (ContinuousClock.now - start).components
    return Double(seconds) + Double(attoseconds) * 1e-18
  }

  /// Kills all, and waits until they are gone, which takes the system a moment.
  private func endAll() {
    var left = processes()
    for _ in 0..<500 where child.isRunning || !left.isEmpty {
      for process in left { kill(process, SIGKILL) }
      Thread.sleep(forTimeInterval: 0.01)
      left = processes()
    }
  }

  /// The processes of this launch that live, zombies not among them.
  private func processes(where isMeant: ([String]) -> Bool = { _ in true }) -> [Int32] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.compactMap { Int32($0) }.filter { process in
      let environment = Self.words(of: process, "environ")
      return environment.contains(mark) && isMeant(environment)
    }
  }

  private static func words(of process: Int32, _ file: String) -> [String] {
    let bytes = FileManager.default.contents(atPath: "/proc/\(process)/\(file)") ?? Data()
    return bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
  }

  private func text(_ name: String) -> String {
    let bytes = FileManager.default.contents(atPath: folder.appendingPathComponent(name).path) ?? Data()
    return String(decoding: bytes, as: UTF8.self)
  }
}
