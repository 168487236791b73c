import CrosspointCore
import CrosspointExchange

extension ExchangeOptions.Policy {
  /// At most this fraction of what the routed rows would take as bf16, every byte counted, on average over steps; within
  /// it the least error.
  ///
  /// - Parameters:
  ///   - fraction: in (0, 2]; 2 is what fp32 takes.
  ///   - measuresSpeed: whether link and codec are timed when the exchange is made, and fp32 is sent where compression
  ///     would take longer. What is chosen then depends on the clock, so that runs need not repeat.
  public static func budget(bytes fraction: Double, measuresSpeed: Bool = false) -> Self {
    Self(Budget(goal: .bytes(fraction), measuresSpeed: measuresSpeed))
  }

  /// ‖x̂ − x‖ / ‖x‖ of what each transfer delivers at most this; within it the fewest bytes.
  ///
  /// - Parameters:
  ///   - relativeError: in (0, 1].
  ///   - measuresSpeed: see ``budget(bytes:measuresSpeed:)``.
  public static func budget(relativeError: Double, measuresSpeed: Bool = false) -> Self {
    Self(Budget(goal: .relativeError(relativeError), measuresSpeed: measuresSpeed))
  }
}

/// What a policy may spend: bytes or error.
struct Budget: PolicySettings {
  enum Goal: Hashable, Sendable {
    case bytes(Double)
    case relativeError(Double)
  }

  let goal: Goal
  let measuresSpeed: Bool

  var noteCapacity: Int { BudgetPolicy.noteWords }

  func validate() throws(CrosspointError) {
    let (name, value, most): (String, Double, Double) =
      switch goal {
      case .bytes(let fraction): ("budget(bytes:)", fraction, 2)
      case .relativeError(let error): ("budget(relativeError:)", error, 1)
      }
    guard value > 0, value <= most else {
      throw CrosspointError(
        .invalidArgument, operation: "ExpertExchange.init", argument: name, "\(value) is not in (0, \(Int(most))]")
    }
  }

  func makePolicy(_ context: PolicyContext) throws(CrosspointError) -> any TransferPolicy {
    BudgetPolicy(self, context)
  }

  var description: String {
    let text =
      switch goal {
      case .bytes(let fraction): "bytes:\(fraction)"
      case .relativeError(let error): "error:\(error)"
      }
    return measuresSpeed ? text + ",speed" : text
  }
}
