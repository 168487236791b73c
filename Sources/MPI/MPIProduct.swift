/// Which MPI something is of, a library or a launcher, from what it says about itself.
package struct MPIProduct: Equatable, Sendable, CustomStringConvertible {
  package enum Family: String, Sendable {
    case openMPI = "Open MPI"
    case mpich = "MPICH"
    case intel = "Intel MPI"
  }

  package let family: Family
  /// For example `4.1.4`.
  package let version: String

  /// - Parameter words: what `MPI_Get_library_version` gives, or `mpirun --version` prints.
  /// - Returns: `nil` for an MPI that is not known here.
  package init?(_ words: String) {
    let names: [(String, Family)] = [
      ("Open MPI", .openMPI), ("OpenRTE", .openMPI), ("Intel(R) MPI", .intel), ("MPICH", .mpich), ("HYDRA", .mpich),
    ]
    guard let family = names.first(where: { words.contains($0.0) })?.1,
      let version = words.firstMatch(of: #/\d+(\.\d+)+/#)?.0
    else { return nil }
    self.family = family
    self.version = String(version)
  }

  /// Whether ranks that use this library find each other under a launcher. MPICH's all speak one protocol; between versions
  /// 4 and 5 Open MPI's changed.
  package func runs(under launcher: MPIProduct) -> Bool {
    family == launcher.family && (family != .openMPI || major == launcher.major)
  }

  package var major: Substring { version.prefix { $0 != "." } }

  /// What starts its programs.
  package var launchers: String {
    switch family {
    case .openMPI: "mpirun.openmpi, or srun --mpi=pmix"
    case .mpich: "mpirun.mpich, or srun --mpi=pmi2"
    case .intel: "Intel's mpirun, or srun --mpi=pmi2"
    }
  }

  package var description: String { "\(family.rawValue) \(version)" }
}
