import ArgumentParser
import Crosspoint
import Foundation
import MoELM

/// What `train` and `eval` share: the text, the ranks, the batch.
struct JobArguments: ParsableArguments {
  @Option(help: "Text to learn, any bytes; a twentieth, in 16 stretches, is held out. Default: the King James Bible.")
  var data: String?

  @Option(help: "Sequences per step over all ranks.")
  var batch = 32

  @Option(help: "Held-out windows that an evaluation reads; 0 reads all.")
  var evalWindows = 512

  @Option(help: ArgumentHelp("One JSON object about the run, written at its end.", valueName: "file"))
  var summary: String?

  @Option(help: ArgumentHelp("How long a rank waits for the others.", valueName: "seconds"))
  var deadline = 120.0

  @Option(help: "Run this many ranks as threads of this process, without MPI.")
  var ranksSimulated: Int?

  func validate() throws {
    if let ranksSimulated, !(1...1024).contains(ranksSimulated) {
      throw ValidationError("--ranks-simulated \(ranksSimulated): give 1 to 1024")
    }
    if !(deadline > 0 && deadline <= 1e6) { throw ValidationError("--deadline \(deadline): give seconds above zero") }
  }

  /// Runs `body` on every rank and ends the process well or with one line that says what went wrong.
  func onEveryRank(_ body: @escaping @Sendable (any Fabric) throws -> Void) throws {
    if let ranksSimulated {
      _ = try SimulatedCluster(ranks: ranksSimulated, deadline: .seconds(deadline)).run(body)
      return
    }
    let fabric = try MPIFabric.world(deadline: .seconds(deadline))
    do {
      try body(fabric)
    } catch let error as CrosspointError where error.isAgreed {
      try? fabric.finalize()
      if fabric.rank == 0 { throw error }
      Foundation.exit(EXIT_FAILURE)  // rank 0 says why
    } catch {
      // This rank alone knows: say so and end the others.
      complain("moe-lm: \(error)")
      fabric.abort(exitCode: 1)
    }
    try fabric.finalize()
  }
}

extension CrosspointError {
  /// Whether every rank throws it, so that MPI can still be ended in order.
  fileprivate var isAgreed: Bool {
    switch code {
    case .invalidArgument, .checkpointMismatch, .file, .nonFinite, .ranksDisagree: true
    default: false
    }
  }
}
