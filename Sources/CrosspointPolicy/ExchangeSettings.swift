import CrosspointCompression
import CrosspointCore
import CrosspointExchange

/// What users choose about an exchange, by the names of the command line: `--wire bf16` there is `wire=bf16` in a text. What
/// is `nil` was not said.
package struct ExchangeSettings: Sendable {
  package var compression = ExchangeOptions.Compression.off
  package var copies = ExchangeOptions.Copies.perExpert
  package var compensation = ResidualCompensation.identity
  /// Of all four transfers, unless one of the following is more exact.
  package var wire = WireFormat.fp32
  package var wireDispatch: WireFormat?
  package var wireCombine: WireFormat?
  /// Of both gradient transfers.
  package var wireGradient: WireFormat?
  package var wireCombineBackward: WireFormat?
  package var wireDispatchBackward: WireFormat?
  package var withinNode = ExchangeOptions.WithinNode.coded
  package var roundingGradient = Rounding.eden
  package var nonFinite = ExchangeOptions.NonFinitePolicy.error
  package var agreement = ExchangeOptions.Agreement.immediate
  package var memory = 0
  package var budgetBytes: Double?
  package var budgetError: Double?
  package var fastest: Double?
  package var tuning: Tuning?
  package var capacityBytes = Int.max
  package var seed: UInt64 = 0

  package init() {}

  /// The options that they come to.
  /// - Throws: `invalidArgument` for budgets that exclude one another or lie outside their range.
  package func options() throws(CrosspointError) -> ExchangeOptions {
    var formats = ExchangeOptions.Wire(wire)
    formats.dispatch = wireDispatch ?? wire
    formats.combine = wireCombine ?? wire
    formats.combineBackward = wireCombineBackward ?? wireGradient ?? wire
    formats.dispatchBackward = wireDispatchBackward ?? wireGradient ?? wire
    return ExchangeOptions(
      compression: compression, copies: copies, compensation: compensation, wire: formats,
      withinNode: withinNode, gradientRounding: roundingGradient, nonFinite: nonFinite, agreement: agreement,
      memory: memory, policy: try policy(),
      capacityBytes: capacityBytes, seed: seed)
  }

  private func policy() throws(CrosspointError) -> ExchangeOptions.Policy {
    func refuse(_ argument: String, _ message: String) -> CrosspointError {
      CrosspointError(.invalidArgument, operation: "ExchangeOptions", argument: argument, message)
    }
    var policies: [(name: String, policy: ExchangeOptions.Policy)] = []
    if let budgetBytes { policies.append(("budget-bytes", .budget(bytes: budgetBytes))) }
    if let budgetError { policies.append(("budget-error", .budget(relativeError: budgetError))) }
    if let fastest {
      policies.append(("fastest", .fastest(relativeError: fastest, tuning: tuning)))
    } else if tuning != nil {
      throw refuse("tuning", "it needs fastest")
    }
    guard let (name, policy) = policies.first else { return .off }
    guard policies.count == 1 else { throw refuse(name, "it and \(policies[1].name) exclude one another: give one") }
    do throws(CrosspointError) { try policy.validate() } catch { throw refuse(name, error.message) }
    return policy
  }
}
