import ArgumentParser
import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointPolicy

/// The options that every tool shares.
///
/// ```
/// --copies expert|rank|node[:R]|automatic
/// --compression off | lsh[:functions=Q,width=W,centred=true|false] | lsh-moe
/// --compensation none|identity|lowrank:R     --wire fp32|bf16|…     --wire-dispatch, --wire-combine, --wire-gradient
/// --within-node coded|plain
/// --rounding-gradient nearest|stochastic|eden
/// --agreement immediate|deferred
/// --memory N
/// --budget-bytes F | --budget-error E | --fastest E [--tuning FILE]
/// ```
package struct ExchangeArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Which rows stand for the tokens: off (the default), lsh, lsh-moe (the paper's six functions).",
      discussion: "lsh takes settings, for example lsh:functions=2,width=64,centred=true.",
      valueName: "off|lsh[:…]|lsh-moe"), transform: reading(ExchangeOptions.Compression.init(named:)))
  package var compression = ExchangeOptions.Compression.off

  @Option(
    help: ArgumentHelp(
      "How often a token with several experts in one place travels there: once for each, to a rank, or to a node.",
      discussion: """
        A node is the ranks that share memory; node:R: R consecutive ranks; automatic: what leaves few rows between nodes.
        """,
      valueName: "expert|rank|node[:R]|automatic"), transform: reading(ExchangeOptions.Copies.init(named:)))
  package var copies = ExchangeOptions.Copies.perExpert

  @Option(help: ArgumentHelp("What is added back of the residual.", valueName: "none|identity|lowrank:R"))
  package var compensation = ResidualCompensation.identity

  @Option(
    help: ArgumentHelp(
      "Wire format of all four transfers; fp32 if left out.", discussion: "\(WireFormat.usage).", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  package var wire = WireFormat.fp32

  @Option(
    help: ArgumentHelp("Wire format of dispatch, instead of --wire.", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  package var wireDispatch: WireFormat?

  @Option(
    help: ArgumentHelp("Wire format of combine, instead of --wire.", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  package var wireCombine: WireFormat?

  @Option(
    help: ArgumentHelp("Wire format of both gradient transfers, instead of --wire.", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  package var wireGradient: WireFormat?

  @Option(
    help: ArgumentHelp("Wire format of combineBackward, instead of --wire-gradient.", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  package var wireCombineBackward: WireFormat?

  @Option(
    help: ArgumentHelp("Wire format of dispatchBackward, instead of --wire-gradient.", valueName: "format"),
    transform: reading(WireFormat.init(named:)))
  package var wireDispatchBackward: WireFormat?

  @Option(
    help: ArgumentHelp(
      "Rows to ranks that share memory: coded as between nodes, or plain fp32 without a codec's time and error.",
      valueName: "coded|plain"))
  package var withinNode = ExchangeOptions.WithinNode.coded

  @Option(
    help: ArgumentHelp(
      "Rounding of both gradient transfers; eden is for rotated alone, other formats then round to nearest.",
      valueName: "nearest|stochastic|eden"))
  package var roundingGradient = Rounding.eden

  @Option(
    help: ArgumentHelp(
      "When ranks agree that all rows came: with each transfer, or with the next one and the end of a step.",
      valueName: "immediate|deferred"))
  package var agreement = ExchangeOptions.Agreement.immediate

  @Option(
    help: ArgumentHelp(
      "Send rows relative to what all ranks learn together in every N-th step; needs entropy codes. 0: nothing is learned.",
      valueName: "N"))
  package var memory = 0

  @Option(
    help: ArgumentHelp(
      "Choose clusters and formats: at most this fraction of bf16, in (0, 2], at the least error.", valueName: "F"))
  package var budgetBytes: Double?

  @Option(
    help: ArgumentHelp(
      "Choose clusters and formats: at most this relative error of each transfer, in (0, 1], in the fewest bytes.",
      valueName: "E"))
  package var budgetError: Double?

  @Option(
    help: ArgumentHelp(
      "Choose formats: at most this relative error of each transfer, in (0, 1], in the least time of codes and links.",
      discussion: "Both are timed at the start, so that runs may differ, or taken from --tuning.", valueName: "E"))
  package var fastest: Double?

  @Option(
    help: ArgumentHelp("What codes and links take, for --fastest: a file that xpoint tune wrote.", valueName: "FILE"),
    transform: reading(Tuning.init(path:)))
  package var tuning: Tuning?

  @Option(help: "Seed of every random choice.")
  package var seed: UInt64 = 0

  package init() {}

  package func validate() throws {
    do throws(CrosspointError) { _ = try settings.options() } catch {
      throw ValidationError("--\(error.argument): \(error.message)")
    }
  }

  /// The options as the library takes them.
  package var exchangeOptions: ExchangeOptions {
    guard let options = try? settings.options() else { preconditionFailure("validate() has refused them") }
    return options
  }

  private var settings: ExchangeSettings {
    var settings = ExchangeSettings()
    (settings.compression, settings.copies, settings.compensation) = (compression, copies, compensation)
    (settings.wire, settings.wireDispatch, settings.wireCombine) = (wire, wireDispatch, wireCombine)
    settings.wireGradient = wireGradient
    (settings.wireCombineBackward, settings.wireDispatchBackward) = (wireCombineBackward, wireDispatchBackward)
    (settings.withinNode, settings.roundingGradient) = (withinNode, roundingGradient)
    (settings.agreement, settings.memory) = (agreement, memory)
    (settings.budgetBytes, settings.budgetError) = (budgetBytes, budgetError)
    (settings.fastest, settings.tuning) = (fastest, tuning)
    settings.seed = seed
    return settings
  }
}
