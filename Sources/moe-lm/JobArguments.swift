import ArgumentParser
import Crosspoint
import CrosspointOptions
import MoELM

/// What `train` and `eval` share: the text, the ranks, the batch.
///
/// What the help of an option says of rank 0 and of each rank may differ between ranks; all other options are compared.
struct JobArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Text to learn, any bytes; a twentieth, in 16 stretches, is held out. Default: the King James Bible.",
      discussion: "Rank 0 reads it for all.", valueName: "file"))
  var data: String?

  @OptionGroup var reading: ReadingOptions

  @Option(help: ArgumentHelp("One JSON object about the run, which rank 0 writes at its end.", valueName: "file"))
  var summary: String?

  @Option(help: ArgumentHelp("How long each rank waits for the others.", valueName: "seconds"))
  var deadline = 120.0

  @Option(help: "Run this many ranks as threads of this process, without MPI.")
  var ranksSimulated: Int?

  @OptionGroup var links: LinkArguments

  func validate() throws {
    if let ranksSimulated, !(1...1024).contains(ranksSimulated) {
      throw ValidationError("--ranks-simulated \(ranksSimulated): give 1 to 1024")
    }
    try links.require("--ranks-simulated", ranksSimulated)
    if !(deadline > 0 && deadline <= 1e6) { throw ValidationError("--deadline \(deadline): give seconds above zero") }
  }

  /// The ranks of this process, if it simulates them.
  var cluster: SimulatedCluster? {
    ranksSimulated.map { links.cluster(ranks: $0, deadline: .seconds(deadline)) }
  }
}
