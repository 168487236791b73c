// Runs what the documents show: without arguments, and with --mpi, the program of docs/using.md; else the named page.
// Between `// snippet: NAME` and `// end` stands what a document shows, parts of one name joined.

// snippet: main
import Crosspoint

func report(_ losses: [Float]) { print("loss: \(losses.first!) → \(losses.last!)") }

if CommandLine.arguments.contains("--mpi") {
  let fabric = try MPIFabric.world()
  do {
    let losses = try train(fabric)
    if fabric.rank == 0 { report(losses) }
    try fabric.finalize()
  } catch {
    fabric.abort(exitCode: 1) { print("trainer: \(error)") }
  }
  // end
} else if CommandLine.arguments.count > 1 {
  let name = CommandLine.arguments[1]
  guard let run = pages[name] else { throw SnippetFailure(description: "no page \(name)") }
  try run()
  print("\(name): all as the page says")
  // snippet: main
} else {
  report(try SimulatedCluster(ranks: 4).run(train)[0])
}
// end
