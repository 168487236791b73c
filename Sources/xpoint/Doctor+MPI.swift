import Crosspoint
import Foundation
import MPI

/// The MPI in use: that its library, its interface and its launcher belong together.
extension Doctor {
  static var mpiLibrary: Check {
    let standard = MPIEnvironment.standardVersion
    let file = libraryFile.map { ", \($0)" } ?? ""
    let found =
      "\(libraryName) (MPI \(standard.major).\(standard.minor))\(file); "
      + "compiled for the interface of \(MPIEnvironment.interface)"
    guard standard.major >= 3 else {
      return Check(
        name: "MPI library", verdict: .broken, found: found,
        fix: "MPI 3 is needed: apt-get install libopenmpi-dev openmpi-bin, then build again")
    }
    if let library, let compiled = MPIProduct(MPIEnvironment.interface), compiled.family == library.family,
      !library.runs(under: compiled)
    {
      return Check(
        name: "MPI library", verdict: .broken, found: found,
        fix: "let LD_LIBRARY_PATH begin with the folder of \(compiled)'s libmpi, as launch/mpirun does, or build again")
    }
    return .ok("MPI library", found)
  }

  /// Started in another process, since MPI ends one in which it cannot start; under a launcher it runs here already.
  static var mpiStart: Check {
    func broken(_ found: String) -> Check {
      Check(
        name: "MPI start", verdict: .broken, found: found,
        fix: "MPI cannot start even one rank: repair its installation, its environment variables or its limits")
    }
    do {
      let level: String
      if MPIEnvironment.isRunning {
        level = "\(try MPIEnvironment.threadLevel)"
      } else {
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let answer = try output(of: own.path, ["doctor", "--start-mpi"])
        let lines = answer.text.split(separator: "\n")
        guard answer.code == 0, let line = lines.first(where: { $0.hasPrefix(levelPrefix) }) else {
          let words = lines.first { $0.contains(where: \.isLetter) }
          return broken(words.map(String.init) ?? "ended with code \(answer.code)")
        }
        level = String(line.dropFirst(levelPrefix.count))
      }
      return .ok("MPI start", "\(levelPrefix)\(level) of single, funneled, serialized, multiple")
    } catch {
      return broken("\(error)")
    }
  }

  /// What the other process does.
  static func startMPI() throws {
    let fabric = try MPIFabric.world(deadline: .seconds(15))
    print("\(levelPrefix)\(try MPIEnvironment.threadLevel)")
    try fabric.finalize()
  }

  private static let levelPrefix = "thread level "

  static var launcher: Check {
    // Under another MPI's it would not be here: see MPIFabric.world.
    if let rank = MPIEnvironment.launchedRank { return .ok("mpirun", "has started this process as rank \(rank)") }
    guard let first = launchers.lazy.compactMap({ Launcher(named: $0) }).first else {
      return Check(
        name: "mpirun", verdict: .broken, found: "not on PATH",
        fix: "install the launcher of \(libraryName), for example with launch/setup, or add its folder to PATH")
    }
    guard let library, let product = first.product else {
      return Check(
        name: "mpirun", verdict: .warning, found: "\(first.path) may not be the launcher of \(libraryName)",
        fix: "start two ranks: each should say that it is one of 2")
    }
    guard !library.runs(under: product) else { return .ok("mpirun", "\(first.path) (\(product))") }
    let fitting = fitting(library).map { "launch with \($0)" } ?? "install the launcher of \(library)"
    return Check(
      name: "mpirun", verdict: .broken, found: "\(first.path) is that of \(product), the library is \(library)",
      fix: fitting)
  }

  private static let launchers = ["mpirun", "mpirun.openmpi", "mpirun.mpich", "mpiexec", "mpiexec.hydra"]

  /// Where the library was loaded from; `nil` where it is part of the program.
  private static var libraryFile: String? {
    // Read to its end: it comes in pieces, and says that it is empty.
    let maps = FileHandle(forReadingAtPath: "/proc/self/maps")?.readDataToEndOfFile() ?? Data()
    return String(decoding: maps, as: UTF8.self).split(separator: "\n").lazy
      .compactMap { $0.split(separator: " ").last.map(String.init) }
      .first { $0.contains("/libmpi") }
  }

  private static var libraryName: String { library.map { "\($0)" } ?? MPIEnvironment.libraryVersion }

  private static var library: MPIProduct? { MPIProduct(MPIEnvironment.libraryVersion) }

  /// The first launcher of this library: beside it, or where the shell looks.
  private static func fitting(_ library: MPIProduct) -> String? {
    let beside = libraryFile.map { "\(($0 as NSString).deletingLastPathComponent)/../bin" }
    return launchers.lazy.flatMap { name in folders(beside).map { "\($0)/\(name)" } }
      .filter { FileManager.default.isExecutableFile(atPath: $0) }
      .first { Launcher(path: $0).product.map(library.runs) ?? false }
      .map { URL(fileURLWithPath: $0).standardized.path }
  }

  private static func folders(_ first: String?) -> [String] {
    [first].compactMap { $0 } + (environment["PATH"] ?? "").split(separator: ":").map(String.init)
  }

  private struct Launcher {
    let path: String
    let product: MPIProduct?

    init(path: String) {
      self.path = path
      product = (try? output(of: path, ["--version"])).flatMap { $0.code == 0 ? MPIProduct($0.text) : nil }
    }

    /// The one that the shell would take.
    init?(named name: String) {
      let paths = folders(nil).lazy.map { "\($0)/\(name)" }
      guard let path = paths.first(where: FileManager.default.isExecutableFile) else { return nil }
      self.init(path: path)
    }
  }

  /// What a program writes, and its exit code.
  private static func output(of program: String, _ arguments: [String]) throws -> (text: String, code: Int32) {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let text = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (text, process.terminationStatus)
  }
}
