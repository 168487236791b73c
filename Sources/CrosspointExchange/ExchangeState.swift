import CrosspointCompression
import CrosspointCore

/// What a checkpoint keeps of an exchange: see ``ExpertExchange/state``.
public struct ExchangeState: Codable, Equatable, Sendable {
  var gradientSteps: UInt64
  /// What its policy has learned, in the policy's own form; `nil` without one.
  var policy: String?
  /// By transfer, what is remembered of its rows; `nil` without a memory.
  var memory: [ExchangeMemory.Saved?]?

  /// No exchange counts further in a lifetime, and every whole number up to it is a `Double`.
  fileprivate static let countLimit: UInt64 = 1 << 53
}

extension ExpertExchange {
  /// What training needs of this exchange to go on bit for bit; the same on every rank.
  ///
  /// Parameters of the ``compensator`` are not part of it: they are the model's, and your optimiser has their moments.
  public var state: ExchangeState {
    ExchangeState(gradientSteps: gradientSteps, policy: policy?.savedState, memory: memory.saved)
  }

  /// Continues from a ``state``, as if the run had never stopped. Call it on every rank or on none.
  /// - Throws: `checkpointMismatch` for a state that no exchange of these options can be in; nothing has changed then.
  public func restore(_ state: ExchangeState) throws(CrosspointError) {
    func mismatch(_ argument: String, _ message: String) -> CrosspointError {
      CrosspointError(.checkpointMismatch, operation: "ExpertExchange.restore", argument: argument, message)
    }
    guard state.gradientSteps <= ExchangeState.countLimit else {
      throw mismatch("gradientSteps", "there are \(state.gradientSteps)")
    }
    guard (memory.interval > 0) == (state.memory != nil) else {
      throw mismatch("memory", "only one of the state and this exchange has one")
    }
    var restored = memory
    do throws(CrosspointError) { try restored.restore(state.memory, codec: transfer.codec) } catch {
      throw mismatch("memory", error.message)
    }
    switch (policy, state.policy) {
    case (nil, nil): break
    case (let policy?, let text?): if let defect = policy.restore(text) { throw mismatch("policy", defect) }
    case (nil, _): throw mismatch("policy", "the state has one and this exchange has none")
    case (_, nil): throw mismatch("policy", "the state has none and this exchange has one")
    }
    memory = restored
    gradientSteps = state.gradientSteps
  }
}
