import ArgumentParser
import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointPolicy

/// The options of an exchange, which every tool shares: what ``ExchangeSetting`` can choose, as text.
package struct ExchangeArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Which rows stand for the tokens: off (the default), lsh, lsh-moe (the paper's six functions).",
      discussion: "lsh takes settings, for example lsh:functions=2,width=64,centred=true.",
      valueName: "off|lsh[:…]|lsh-moe"))
  package var compression: String?

  @Option(
    help: ArgumentHelp(
      "How often a token with several experts in one place travels there: once for each (the default), to a rank, or to a node.",
      discussion: """
        A node is the ranks that share memory; node:R: R consecutive ranks; automatic: what leaves few rows between nodes.
        """,
      valueName: "expert|rank|node[:R]|automatic"))
  package var copies: String?

  @Option(
    help: ArgumentHelp(
      "What is added back of the residual; identity if left out.", valueName: "none|identity|lowrank:R"))
  package var compensation: String?

  @Option(
    help: ArgumentHelp(
      "Wire format of all four transfers; fp32 if left out.", discussion: "\(WireFormat.usage).", valueName: "format"))
  package var wire: String?

  @Option(help: ArgumentHelp("Wire format of dispatch, instead of --wire.", valueName: "format"))
  package var wireDispatch: String?

  @Option(help: ArgumentHelp("Wire format of combine, instead of --wire.", valueName: "format"))
  package var wireCombine: String?

  @Option(help: ArgumentHelp("Wire format of both gradient transfers, instead of --wire.", valueName: "format"))
  package var wireGradient: String?

  @Option(help: ArgumentHelp("Wire format of combineBackward, instead of --wire-gradient.", valueName: "format"))
  package var wireCombineBackward: String?

  @Option(help: ArgumentHelp("Wire format of dispatchBackward, instead of --wire-gradient.", valueName: "format"))
  package var wireDispatchBackward: String?

  @Option(
    help: ArgumentHelp(
      "Rows to ranks that share memory: coded as between nodes (the default), or plain fp32 without a codec's time and error.",
      valueName: "coded|plain"))
  package var withinNode: String?

  @Option(
    help: ArgumentHelp(
      "When ranks agree that all rows came: with each transfer (immediate, the default), or with the next one and the end of a step.",
      valueName: "immediate|deferred"))
  package var agreement: String?

  @Option(
    help: ArgumentHelp(
      "Send rows relative to what all ranks learn together in every N-th step; needs entropy codes. 0 (the default): nothing is learned.",
      valueName: "N"))
  package var memory: String?

  @Option(
    help: ArgumentHelp(
      "Choose clusters and formats: at most this fraction of bf16, in (0, 2], at the least error.", valueName: "F"))
  package var budgetBytes: String?

  @Option(
    help: ArgumentHelp(
      "Choose clusters and formats: at most this relative error of each transfer, in (0, 1], in the fewest bytes.",
      valueName: "E"))
  package var budgetError: String?

  @Option(
    help: ArgumentHelp(
      "Choose formats: at most this relative error of each transfer, in (0, 1], in the least time of codes and links.",
      discussion: "Both are timed at the start, so that runs may differ, or taken from --tuning.", valueName: "E"))
  package var fastest: String?

  @Option(
    help: ArgumentHelp("What codes and links take, for --fastest: a file that xpoint tune wrote.", valueName: "FILE"))
  package var tuning: String?

  @Option(help: "Seed of every random choice; 0 if left out.")
  package var seed: String?

  package init() {}

  package func validate() throws {
    do throws(CrosspointError) { _ = try ExchangeOptions(values) } catch {
      throw ValidationError("--\(error.argument): \(error.message)")
    }
  }

  /// The options as the library takes them.
  package var exchangeOptions: ExchangeOptions {
    guard let options = try? ExchangeOptions(values) else { preconditionFailure("validate() has refused them") }
    return options
  }

  /// What was given.
  private var values: [ExchangeSetting: String] {
    let all: [ExchangeSetting: String?] = [
      .compression: compression, .copies: copies, .compensation: compensation, .wire: wire,
      .wireDispatch: wireDispatch, .wireCombine: wireCombine, .wireGradient: wireGradient,
      .wireCombineBackward: wireCombineBackward, .wireDispatchBackward: wireDispatchBackward, .withinNode: withinNode,
      .agreement: agreement, .memory: memory, .budgetBytes: budgetBytes,
      .budgetError: budgetError, .fastest: fastest, .tuning: tuning, .seed: seed,
    ]
    return all.compactMapValues(\.self)
  }
}
