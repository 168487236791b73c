import CrosspointExchange

/// One exchange of the fabric in a training step: where a fault can strike. Ranks are on nodes of their own.
package struct StepPhase: Sendable, CustomStringConvertible {
  /// The exchanges of a transfer, in their order.
  package enum Part: Int, Sendable, CaseIterable { case announce, settle, move, settleAgain }

  /// How many the fabric has made before, those of the making of the `ExpertExchange` included.
  package let exchange: Int
  package let description: String

  /// The three exchanges in which ranks compare what they make.
  package static let making = (0..<3).map { StepPhase(exchange: $0, description: "making \($0)") }

  /// A phase of a transfer.
  package static func phase(_ part: Part, of kind: TransferKind) -> StepPhase {
    StepPhase(
      exchange: making.count + Part.allCases.count * kind.rawValue + part.rawValue, description: "\(kind) \(part)")
  }

  /// The same phase of all four transfers.
  package static func each(_ part: Part) -> [StepPhase] { TransferKind.allCases.map { phase(part, of: $0) } }

  /// Every phase of the four transfers.
  package static let transfers = TransferKind.allCases.flatMap { kind in Part.allCases.map { phase($0, of: kind) } }
}
