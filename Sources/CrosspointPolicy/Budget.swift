import CrosspointCore
import CrosspointExchange

extension ExchangeOptions.Policy {
  /// At most this fraction of what the routed rows would take as bf16, every byte counted, on average over steps; within
  /// it the least error.
  ///
  /// - Parameter fraction: in (0, 2]; 2 is what fp32 takes.
  public static func budget(bytes fraction: Double) -> Self { Self(Budget(goal: .bytes(fraction))) }

  /// ‖x̂ − x‖ / ‖x‖ of what each transfer delivers at most this; within it the fewest bytes.
  ///
  /// - Parameter relativeError: in (0, 1].
  public static func budget(relativeError: Double) -> Self { Self(Budget(goal: .relativeError(relativeError))) }

  /// ‖x̂ − x‖ / ‖x‖ of what each transfer delivers at most this; within it the least time, of codes and links.
  ///
  /// - Parameters:
  ///   - relativeError: in (0, 1].
  ///   - tuning: what they take; `nil`: it is timed when the exchange is made, and runs need not repeat.
  public static func fastest(relativeError: Double, tuning: Tuning? = nil) -> Self {
    Self(Budget(goal: .fastest(relativeError), tuning: tuning))
  }
}

/// What a policy may spend, bytes or error, and what it spends least of.
struct Budget: PolicySettings {
  enum Goal: Hashable, Sendable {
    case bytes(Double)
    case relativeError(Double)
    case fastest(Double)
  }

  let goal: Goal
  var tuning: Tuning?

  var noteCapacity: Int { BudgetPolicy.noteWords }

  func validate() throws(CrosspointError) {
    let (name, value, most): (String, Double, Double) =
      switch goal {
      case .bytes(let fraction): ("budget(bytes:)", fraction, 2)
      case .relativeError(let error): ("budget(relativeError:)", error, 1)
      case .fastest(let error): ("fastest(relativeError:)", error, 1)
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
    switch goal {
    case .bytes(let fraction): "bytes:\(fraction)"
    case .relativeError(let error): "error:\(error)"
    case .fastest(let error): "fastest:\(error)" + (tuning.map { ",tuning:\($0.fingerprint)" } ?? "")
    }
  }
}
