import Foundation
import LaunchSupport

/// Launches the rank program under mpirun, in processes of its own: no MPI runs in the test process.
enum RankProgram {
  private static let variable = "CROSSPOINT_RANK_PROGRAM"

  /// Whether CROSSPOINT_RANK_PROGRAM names one: a build in release.
  static var isGiven: Bool { ProcessInfo.processInfo.environment[variable] != nil }

  /// What CROSSPOINT_RANK_PROGRAM names, else the product of this build.
  static func executable() throws -> URL { try Programs.product("RankProgram", variable: variable) }

  /// Runs a scenario on so many ranks; ends it after `seconds`, for which mpirun says `time limit`.
  ///
  /// - Parameter sharedMemory: the folder for the files of MPI's shared memory, instead of /dev/shm itself.
  static func launch(
    _ scenario: String, ranks: Int, sharedMemory: URL? = nil, seconds: Int = 120
  ) throws -> Outcome {
    var arguments = Programs.oversubscribe + ["--timeout", "\(seconds)"]
    if let sharedMemory {
      arguments += ["--mca", "btl_vader_backing_directory", sharedMemory.path]
      arguments += ["--mca", "osc_sm_backing_directory", sharedMemory.path]
    }
    arguments += ["-n", "\(ranks)", try executable().path, scenario]
    return try Launch.run(Programs.mpirun(), arguments, limit: Double(seconds + 15))
  }

  static func run(_ arguments: [String]) throws -> Outcome {
    try Launch.run(executable(), arguments, limit: 20)
  }
}
