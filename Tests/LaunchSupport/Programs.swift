import Foundation

/// Where the programs are that tests launch.
public enum Programs {
  /// A product of the package: what the environment's variable names; else the one beside the test bundle, where SwiftPM puts
  /// all products of a build.
  public static func product(_ name: String, variable: String) throws -> URL {
    if let path = ProcessInfo.processInfo.environment[variable] {
      guard FileManager.default.isExecutableFile(atPath: path) else {
        throw LaunchFailure("\(variable) names \(path), which is no program")
      }
      return URL(fileURLWithPath: path)
    }
    let linked = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let own = linked ?? CommandLine.arguments[0]
    let candidate = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent(name)
    guard FileManager.default.isExecutableFile(atPath: candidate.path) else {
      throw LaunchFailure("\(candidate.path) is missing: `swift build --product \(name)` makes it")
    }
    return candidate
  }

  /// Open MPI's own launcher where MPICH is installed beside it.
  public static func mpirun() throws -> URL {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    for name in ["mpirun.openmpi", "mpirun"] {
      for folder in folders {
        let candidate = URL(fileURLWithPath: String(folder)).appendingPathComponent(name)
        if FileManager.default.isExecutableFile(atPath: candidate.path) { return candidate }
      }
    }
    throw LaunchFailure("mpirun is missing: install openmpi-bin, or put it on the PATH")
  }

  /// What mpirun needs for more ranks than cores.
  public static let oversubscribe = ["--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
}
