import CCrosspointKernels
import Crosspoint
import Foundation
import MPI

extension Doctor {
  static func checks() -> [Check] {
    [
      platform, cores, kernelVariant, mpiLibrary, mpiStart, launcher, rootPermission, sharedMemory, nodeMemory,
      simulatedExchange,
    ]
  }

  static var environment: [String: String] { ProcessInfo.processInfo.environment }

  private static var platform: Check {
    #if arch(x86_64)
      let processor = "x86-64"
    #elseif arch(arm64)
      let processor = "arm64"
    #else
      let processor = "another processor"
    #endif
    #if compiler(>=6.3)
      let compiler = "Swift 6.3 or later"
    #else
      let compiler = "Swift 6.2"
    #endif
    return .ok(
      "platform", "\(ProcessInfo.processInfo.operatingSystemVersionString), \(processor), built by \(compiler)")
  }

  private static var cores: Check {
    let cores = ProcessInfo.processInfo.activeProcessorCount
    guard cores > 1 else {
      return Check(
        name: "cores", verdict: .warning, found: "1 usable core", fix: "two ranks will take turns: give more cores")
    }
    return .ok("cores", "\(cores) usable; more ranks than that need mpirun --oversubscribe")
  }

  private static var kernelVariant: Check {
    let available = [XP_SCALAR, XP_AVX2, XP_AVX512, XP_NEON].compactMap { xp_kernels_variant($0) }
      .map { String(cString: $0.pointee.name) }
    let chosen = String(cString: xp_kernels_best().pointee.name)
    let found = "\(chosen) chosen of \(available.joined(separator: ", "))"
    if let forced = environment["CROSSPOINT_KERNELS"], forced != chosen {
      return Check(
        name: "kernels", verdict: .warning, found: "\(found); CROSSPOINT_KERNELS=\(forced) is ignored",
        fix: "set it to one of \(available.joined(separator: ", ")), or unset it")
    }
    if chosen == "scalar" {
      return Check(
        name: "kernels", verdict: .warning, found: found,
        fix: "no fast kernels for this processor: everything works, hashing and coding are slow")
    }
    return .ok("kernels", found)
  }

  private static var rootPermission: Check {
    let names = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"]
    guard geteuid() == 0, MPIEnvironment.libraryVersion.contains("Open MPI") else {
      return .ok("root", "no permission needed")
    }
    guard names.allSatisfy({ environment[$0] == "1" }) else {
      return Check(
        name: "root", verdict: .warning, found: "running as root, which mpirun refuses",
        fix: "export \(names[0])=1 \(names[1])=1 (the scripts in launch/ do)")
    }
    return .ok("root", "running as root, permitted by \(names[0])")
  }

  private static var sharedMemory: Check {
    var information = statvfs()
    guard statvfs("/dev/shm", &information) == 0 else {
      return Check(
        name: "/dev/shm", verdict: .warning, found: "not there",
        fix: "ranks of one machine talk through shared memory: mount a tmpfs at /dev/shm")
    }
    let unit = UInt64(information.f_frsize)
    let (size, free) = ((UInt64(information.f_blocks) * unit) >> 20, (UInt64(information.f_bavail) * unit) >> 20)
    guard size > 0 else { return .ok("/dev/shm", "there, without a size of its own") }
    let found = "\(free) MiB free of \(size) MiB"
    guard free >= 64 else {
      return Check(
        name: "/dev/shm", verdict: .warning, found: found,
        fix: "clear it or make it larger (docker run --shm-size=1g): MPI puts its buffers there")
    }
    return .ok("/dev/shm", found)
  }

  /// What this process can do alone and, under a launcher, whether the ranks of its node do.
  private static var nodeMemory: Check {
    func warning(_ found: String) -> Check {
      Check(
        name: "memory of a node", verdict: .warning, found: found,
        fix: "rows travel in slower messages: docs/launching.md says what ranks need to share memory")
    }
    if let obstacle = MPIFabric.memoryObstacle { return warning("not shared: \(obstacle)") }
    do {
      guard MPIEnvironment.launchedRank != nil else {
        return .ok("memory of a node", "can be shared with other ranks of this machine")
      }
      let fabric = try MPIFabric.world()
      let shared = (0..<fabric.rankCount).filter { fabric.sharesMemory(with: $0) }
      let alone = fabric.unshared.sorted { $0.key < $1.key }.map { "; not with rank \($0.key): \($0.value)" }.joined()
      let found = "rank \(fabric.rank) shares with ranks \(shared.map(String.init).joined(separator: ", "))\(alone)"
      return alone.isEmpty ? .ok("memory of a node", found) : warning(found)
    } catch {
      return warning("\(error)")
    }
  }

  /// Two ranks in this process, experts that are the identity, one expert per token: the input must come back bit for bit.
  private static var simulatedExchange: Check {
    let (rows, hidden) = (257, 96)
    do {
      let wrong = try SimulatedCluster(ranks: 2).run { fabric in
        var generator = SplitMix64(seed: UInt64(fabric.rank))
        let values = (0..<rows * hidden).map { _ in generator.nextUnit() - 0.5 }
        let tokens = try TokenBatch(values, hidden: hidden)
        let routing = try Routing(
          topkIndices: (0..<rows).map { _ in Int32(generator.next() % 3) },
          topkWeights: Array(repeating: 1, count: rows),
          topK: 1, experts: 3)
        let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 3, hidden: hidden))
        let handle = try exchange.dispatch(tokens, routing)
        let home = try exchange.combine(handle.rows, handle)
        return zip(home.elements, values).count { $0.bitPattern != $1.bitPattern }
      }.reduce(0, +)
      guard wrong == 0 else {
        return Check(
          name: "simulated exchange", verdict: .broken, found: "\(wrong) values came back changed",
          fix: "try CROSSPOINT_KERNELS=scalar; if that helps, report the processor, else test the memory")
      }
      return .ok("simulated exchange", "2 ranks, \(rows) tokens each, bitwise right")
    } catch {
      return Check(
        name: "simulated exchange", verdict: .broken, found: "\(error)",
        fix: "report this with the output of xpoint doctor")
    }
  }
}
