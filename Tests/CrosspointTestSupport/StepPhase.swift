import CrosspointExchange

/// One exchange of the fabric in a training step: where a fault can strike. Ranks are on nodes of their own.
package struct StepPhase: Sendable, CustomStringConvertible {
  /// The exchanges of a transfer, in their order.
  package enum Part: Int, Sendable, CaseIterable { case announce, settlePlaces, move, settle }

  /// How many the fabric has made before, those of the making of the `ExpertExchange` included.
  package let exchange: Int
  /// What the exchange is made with: bodies up to so many bytes travel with their announcements.
  package let smallBytes: Int?
  package let description: String

  /// The three exchanges in which ranks compare what they make.
  package static let making = (0..<3).map { StepPhase(exchange: $0, smallBytes: nil, description: "making \($0)") }

  /// The parts of a transfer whose bodies travel with their announcements, or all move later.
  package static func parts(of kind: TransferKind, moves: Bool) -> [Part] {
    guard moves else { return [.announce, .settle] }
    return kind == .dispatch ? Part.allCases : [.announce, .move, .settle]
  }

  /// A phase of a transfer.
  package static func phase(_ part: Part, of kind: TransferKind, moves: Bool = true) -> StepPhase {
    let before = TransferKind.allCases[..<kind.rawValue].reduce(making.count) { $0 + parts(of: $1, moves: moves).count }
    return StepPhase(
      exchange: before + parts(of: kind, moves: moves).firstIndex(of: part)!, smallBytes: moves ? 0 : nil,
      description: "\(kind) \(part)\(moves ? ", moving" : "")")
  }

  /// The same phase of all four transfers.
  package static func each(_ part: Part, moves: Bool = true) -> [StepPhase] {
    TransferKind.allCases.map { phase(part, of: $0, moves: moves) }
  }

  /// Every phase of the four transfers, of either way.
  package static let transfers = [false, true].flatMap { moves in
    TransferKind.allCases.flatMap { kind in parts(of: kind, moves: moves).map { phase($0, of: kind, moves: moves) } }
  }
}
