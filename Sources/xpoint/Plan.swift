import ArgumentParser
import Crosspoint
import CrosspointFiles
import CrosspointOptions
import Foundation

/// Predicts what a layer's transfers would take on ranks that are not there.
struct Plan: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Predicts a step's time, bytes and memory for any number of nodes, from what xpoint tune measured.",
    discussion: """
      The four transfers of one layer, without the experts' work. Rows go by a sample of routings; the rank that gets most \
      decides. docs/benchmarks.md says what the model leaves out, and how near it comes.

      Examples:
        xpoint plan --tuning tuning.json --nodes 16 --ranks-per-node 8 --hidden 4096 --top-k 8 --experts 256
        xpoint plan --tuning tuning.json --nodes 4 --skew 0.5 --wire fp32 --wire rotated:4 --json plan.json
      """)

  @Option(help: ArgumentHelp("What xpoint tune wrote.", valueName: "FILE"), transform: reading(Tuning.init(path:)))
  var tuning: Tuning
  @Option(help: "Nodes.")
  var nodes = 4
  @Option(help: "Ranks of each node.")
  var ranksPerNode = 1
  @OptionGroup var layer: LayerArguments
  @Option(help: "How unequally experts are wanted: in proportion to 1 / place to this power; 0 is all alike.")
  var skew = 0.0
  @Option(help: "Ranks that share a core.")
  var ranksPerCore = 1.0
  @Option(
    help: ArgumentHelp(
      "Wire formats of all four transfers; fp32, bf16 and rotated:4 if left out.", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  var wire: [WireFormat] = []
  @Option(help: ArgumentHelp("Writes the table as JSON.", valueName: "FILE"))
  var json: String?

  func validate() throws {
    try Ranges.require(
      ("--nodes", nodes, 1...65536), ("--ranks-per-node", ranksPerNode, 1...1024),
      ("--experts", layer.experts, 1...65536))
    guard (0...10).contains(skew) else { throw ValidationError("--skew is \(skew); 0 to 10 is possible") }
    guard (1...1024).contains(ranksPerCore) else {
      throw ValidationError("--ranks-per-core is \(ranksPerCore); 1 to 1024 is possible")
    }
    for (link, isNeeded, name) in [
      (tuning.betweenNodes, nodes > 1, "different nodes"), (tuning.withinNode, ranksPerNode > 1, "one node"),
    ] where isNeeded && link == nil {
      throw ValidationError("--tuning: it was made where no two ranks were on \(name): tune where some are")
    }
    for format in wire where tuning.codecs["\(format)"] == nil {
      throw ValidationError(
        "--wire \(format): not in the tuning, which has \(tuning.codecs.keys.sorted().joined(separator: ", "))")
    }
  }

  func run() throws {
    let shape = PlanShape(
      nodes: nodes, ranksPerNode: ranksPerNode, tokens: layer.tokens, hidden: layer.hidden, topK: layer.topK,
      experts: layer.experts, skew: skew
    )
    let copies: [ExchangeOptions.Copies] = [.perExpert, .perRank] + (ranksPerNode > 1 ? [.perNode()] : [])
    let formats = wire.isEmpty ? [.fp32, .bf16, WireFormat("rotated:4")!] : wire
    var steps: [PlanStep] = []
    for copies in copies {
      for wire in formats { steps.append(try PlanStep(shape, copies, wire, tuning, ranksPerCore: ranksPerCore)) }
    }
    var table = Table(columns: [
      "copies", "wire", "between(MB)", "within(MB)", "rounds(ms)", "links(ms)", "codes(ms)", "rows(ms)", "step(ms)",
      "ratio", "memory(MB)",
    ])
    for step in steps {
      table.append(
        [step.copies, step.wire, (step.bytesBetween / 1e6).fixed(2), (step.bytesWithin / 1e6).fixed(2)]
          + [step.rounds, step.links, step.codes, step.rows, step.seconds].map { ($0 * 1e3).fixed(3) }
          + [(step.seconds / steps[0].seconds).fixed(3), (step.memoryBytes / 1e6).fixed(1)])
    }
    print("# \(shape.ranks) ranks on \(nodes) nodes; the rank that gets most; ratio: step over the first line's")
    print(table.text)
    if let json { try writeJSON(steps, to: json, argument: "--json") }
  }
}
