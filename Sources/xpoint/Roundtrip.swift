import ArgumentParser
import Crosspoint
import CrosspointFiles
import CrosspointOptions

struct Roundtrip: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Sends the rows of a NumPy file through clustering and the wire, and shows what arrives.",
    discussion: """
      X holds float32 rows [rows, hidden]; R, if given, the expert of each row (int32 or int64 [rows], -1: not sent). \
      Two ranks are simulated: one has all rows, the other all experts. Y gets, for each row of X, the row that its \
      expert receives; zeros for a row that is not sent. Clusters are formed per expert.

      P, if given, holds rows that both ranks have seen in earlier steps, and Q their labels; L holds the labels of X's \
      rows: token ids, or any integers from 0 on that rows have in common (-1: none). Both ranks then remember the mean \
      row of each label and the axes along which rows differ from it, and entropy-coded rows carry only what is left.

      The JSON has rows, rowsSent, bytesSent (all that travels: headers, counts, scales, means, labels), stateBytes (the \
      part of them that keeping the memory the same on both ranks takes of each step), bytesBF16 (the routed rows as \
      bare bf16), residualEnergy (share of the energy that clustering keeps at home) and choice (the settings; with a budget, what it came to and why).

      Examples:
        xpoint roundtrip --input X.npy --output Y.npy --wire rotated:4 --json out.json
        xpoint roundtrip --input X.npy --output Y.npy --routing R.npy --compression lsh:functions=2 --json out.json
        xpoint roundtrip --input X.npy --output Y.npy --routing R.npy --budget-bytes 0.13
        xpoint roundtrip --input X.npy --output Y.npy --labels L.npy --warm P.npy --warm-labels Q.npy --budget-bytes 0.07
      """)

  @Option(help: ArgumentHelp("float32 rows [rows, hidden].", valueName: "X.npy"))
  var input: String

  @Option(help: ArgumentHelp("Where the received rows go.", valueName: "Y.npy"))
  var output: String

  @Option(help: ArgumentHelp("Expert of each row; one expert for all if left out.", valueName: "R.npy"))
  var routing: String?

  @Option(help: ArgumentHelp("Label of each row; needs --warm-labels.", valueName: "L.npy"))
  var labels: String?

  @Option(help: ArgumentHelp("Rows of earlier steps, float32 [rows, hidden].", valueName: "P.npy"))
  var warm: String?

  @Option(help: ArgumentHelp("Label of each of these; needs --labels.", valueName: "Q.npy"))
  var warmLabels: String?

  @Option(help: ArgumentHelp("Where the figures go; stdout if left out.", valueName: "file"))
  var json: String?

  @OptionGroup var exchange: ExchangeArguments

  /// What the JSON holds.
  struct Figures: Encodable {
    var rows: Int
    var rowsSent: Int
    var bytesSent: Int
    var stateBytes: Int
    var bytesBF16: Int
    var residualEnergy: Double
    var choice: String
  }

  func validate() throws {
    guard (labels == nil) == (warmLabels == nil) else {
      throw ValidationError(
        "--labels and --warm-labels go together: labels say what rows have in common with earlier ones")
    }
    guard exchange.exchangeOptions.memory == 0 else {
      throw ValidationError("--memory is for training, which learns as it goes: here --warm says what was seen")
    }
    guard warmLabels == nil || warm != nil else { throw ValidationError("--warm-labels needs --warm") }
  }

  private struct Outcome: ~Copyable {
    let figures: Figures
    let received: TokenBatch
  }

  func run() throws {
    // Compensation would give back what did not travel, and only the way there is of interest.
    var options = exchange.exchangeOptions
    options.compensation = .none
    options.wire.combine = .fp32
    options.policy.transfers = [.dispatch]
    let outcome = try transport(options)
    try Npy.write(outcome.received, to: output, argument: "--output")
    if let json {
      try writeJSON(outcome.figures, to: json, argument: "--json")
    } else {
      print(String(decoding: try encodedJSON(outcome.figures, argument: "--json"), as: UTF8.self), terminator: "")
    }
  }

  /// Dispatches from rank 0, which has the rows, to rank 1, which has the experts, and brings the received rows home as
  /// fp32: combine without compensation and with weight 1 gives each token the row that stood for it, bit for bit.
  private func transport(_ options: ExchangeOptions) throws -> Outcome {
    let tokens = try Npy.readRows(input, argument: "--input")
    let (rows, hidden) = (tokens.rows, tokens.hidden)
    let experts = try self.experts(rows: rows)
    let rowLabels = try labels.map { path throws(CrosspointError) in try readLabels(path, "--labels", rows: rows) }
    let memory = try self.memory(hidden: hidden, seed: options.seed)
    let expertCount = Int(max(experts.max() ?? 0, 0)) + 1
    // Experts lie in contiguous blocks: rank 0 holds as many again, which get nothing.
    let layout = try ExpertLayout(experts: 2 * expertCount, hidden: hidden)
    let full = try Routing(
      topkIndices: experts.map { $0 < 0 ? -1 : $0 + Int32(expertCount) }, topkWeights: experts.map { _ in 1 }, topK: 1,
      experts: 2 * expertCount)
    let empty = try Routing(topkIndices: [], topkWeights: [], topK: 1, experts: 2 * expertCount)
    let result = Handover<TokenBatch>()
    let source = Handover(consume tokens)

    let statistics = try SimulatedCluster(ranks: 2, deadline: .seconds(3600)).run { fabric in
      let mine = try fabric.rank == 0 ? source.take()! : TokenBatch(rows: 0, hidden: hidden)
      let exchange = try ExpertExchange(
        fabric: fabric, layout: layout, options: options.decidingCopies(topK: 1, layout: layout, fabric: fabric))
      exchange.memory[.dispatch] = memory
      let handle = try exchange.dispatch(
        mine, fabric.rank == 0 ? full : empty, labels: fabric.rank == 0 ? rowLabels : nil)
      let home = try exchange.combine(handle.rows, handle)
      if fabric.rank == 0 { result.put(home) }
      return exchange.statistics
    }[0]

    let figures = Figures(
      rows: rows, rowsSent: statistics.rowsSent, bytesSent: statistics[.dispatch].wireBytes,
      stateBytes: statistics.rowsSent > 0 ? memory?.bytesPerStep ?? 0 : 0,
      bytesBF16: 2 * hidden * statistics.rowsRouted, residualEnergy: statistics.residualEnergy,
      choice: statistics.choices[0].map { "policy=\(options.policy) \($0)" }
        ?? "compression=\(options.compression) wire=\(options.wire.dispatch)")
    return Outcome(figures: figures, received: result.take()!)
  }

  /// What both ranks have learned from the rows of earlier steps.
  private func memory(hidden: Int, seed: UInt64) throws(CrosspointError) -> RowMemory? {
    guard let warm else { return nil }
    let rows = try Npy.readSomeRows(warm, argument: "--warm")
    guard rows.hidden == hidden else {
      throw fileError("--warm", warm, "has rows of \(rows.hidden), --input of \(hidden)")
    }
    let labels = try warmLabels.map { path throws(CrosspointError) in
      try readLabels(path, "--warm-labels", rows: rows.rows)
    }
    let codec = try RowCodec(hidden: hidden, seed: seed, pool: BufferPool())
    return try RowMemory(learnedFrom: rows, labels: labels, codec: codec)
  }

  /// Labels of rows, checked.
  private func readLabels(_ path: String, _ argument: String, rows: Int) throws(CrosspointError) -> [Int32] {
    let labels = try Npy.readIntegers(path, argument: argument).values
    guard labels.count == rows else {
      throw fileError(argument, path, "has \(labels.count) values for \(rows) rows")
    }
    if let problem = RowMemory.problem(labels: labels, of: "row") { throw fileError(argument, path, problem) }
    return labels
  }

  /// The expert of each row, checked.
  private func experts(rows: Int) throws(CrosspointError) -> [Int32] {
    guard let routing else { return Array(repeating: 0, count: rows) }
    let experts = try Npy.readIntegers(routing, argument: "--routing").values
    guard experts.count == rows else {
      throw fileError("--routing", routing, "has \(experts.count) values for \(rows) rows of --input")
    }
    let most = 65_535
    if let row = experts.firstIndex(where: { $0 < -1 || $0 > most }) {
      throw fileError(
        "--routing", routing, "is no routing: row \(row) names expert \(experts[row]); -1 (not sent) to \(most) allowed"
      )
    }
    return experts
  }
}
