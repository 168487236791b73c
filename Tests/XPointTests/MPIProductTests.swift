import MPI
import Testing

struct MPIProductTests {
  private static let libraries = [
    "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4, May 26, 2022": "Open MPI 4.1.4",
    "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11": "Open MPI 5.0.11",
    "MPICH Version:\t4.0.2 MPICH Release date:\tThu Apr  7 12:34:45 CDT 2022 MPICH ABI:\t14:2:2": "MPICH 4.0.2",
    "MPICH Version:      5.0.2 MPICH Release date: Fri Sep 25": "MPICH 5.0.2",
    "Intel(R) MPI Library 2021.13 for Linux* OS": "Intel MPI 2021.13",
  ]
  private static let launchers = [
    "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/": "Open MPI 4.1.4",
    "mpirun.openmpi (OpenRTE) 4.1.5\n": "Open MPI 4.1.5",
    "mpirun (Open MPI) 5.0.11\n": "Open MPI 5.0.11",
    "HYDRA build details:\n    Version:                                 4.0.2\n": "MPICH 4.0.2",
    "Intel(R) MPI Library for Linux* OS, Version 2021.13 Build 20240701": "Intel MPI 2021.13",
  ]

  @Test func librariesAndLaunchersAreKnownByTheirWords() {
    for (words, name) in Self.libraries.merging(Self.launchers, uniquingKeysWith: { a, _ in a }) {
      #expect(MPIProduct(words).map { "\($0)" } == name)
    }
    #expect(MPIProduct("slurm 22.05.8") == nil && MPIProduct("Open MPI") == nil)
  }

  @Test func aLibraryRunsUnderItsOwnLauncherAlone() throws {
    let fitting = [
      "Open MPI 4.1.4": ["Open MPI 4.1.4", "Open MPI 4.1.5"], "Open MPI 5.0.11": ["Open MPI 5.0.11"],
      "MPICH 4.0.2": ["MPICH 4.0.2"], "MPICH 5.0.2": ["MPICH 4.0.2"], "Intel MPI 2021.13": ["Intel MPI 2021.13"],
    ]
    for words in Self.libraries.keys {
      let library = try #require(MPIProduct(words))
      let found = Self.launchers.keys.compactMap { MPIProduct($0) }.filter(library.runs).map { "\($0)" }.sorted()
      #expect(found == fitting["\(library)"])
    }
  }
}
