import CrosspointCore
import Glibc
import MPI

/// The program that started this process, as the process's environment tells.
///
/// Each MPI has a launcher of its own. Under another one's, every process is rank 0 of a world of one, and all do the same
/// work and write the same files.
enum Launcher {
  /// What launchers set to the number of processes that they have started together. `SLURM_STEP_NUM_TASKS` is not among a
  /// batch script's own variables, `SLURM_NTASKS` is.
  private static let sizes = [
    ("OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun"), ("PMI_SIZE", "MPICH's or Intel's mpirun"),
    ("MPI_LOCALNRANKS", "MPICH's or Intel's mpirun"), ("SLURM_STEP_NUM_TASKS", "srun"),
  ]

  /// - Throws: `invalidArgument` where a launcher has started several processes and MPI made a world of one.
  static func check(_ world: Communicator) throws(CrosspointError) {
    func size(_ variable: String) -> Int? { getenv(variable).flatMap { Int(String(cString: $0)) } }
    // Its own launcher may have started one process, inside a job of another.
    guard world.size == 1, size("OMPI_COMM_WORLD_SIZE") != 1 else { return }
    let launchers = MPIProduct(MPIEnvironment.libraryVersion)?.launchers ?? "see its manual"
    for (variable, launcher) in sizes {
      guard let size = size(variable), size > 1 else { continue }
      throw CrosspointError(
        .invalidArgument, operation: "world", rank: 0, argument: "launcher",
        "\(launcher) has started \(size) processes (\(variable)), but each is rank 0 of 1 to \(MPIEnvironment.libraryVersion.prefix { $0 != "," }): start them "
          + "with the launcher of that MPI (\(launchers))")
    }
  }
}
