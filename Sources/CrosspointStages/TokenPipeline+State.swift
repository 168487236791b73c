import CrosspointCore

/// Parameters, gradients and checkpoints of all stages as one.
extension TokenPipeline {
  /// The stages' parameters, one stage after the other.
  public var parameters: [Float] {
    get { stages.flatMap(\.parameters) }
    set {
      split(newValue) { $0.parameters = $1 }
    }
  }

  /// ∂L/∂``parameters``.
  public var gradients: [Float] {
    get { stages.flatMap(\.gradients) }
    set {
      split(newValue) { $0.gradients = $1 }
    }
  }

  /// Sets all gradients to zero.
  public func resetGradients() {
    for stage in stages { stage.gradients = [Float](repeating: 0, count: stage.gradients.count) }
  }

  private func split(_ values: [Float], _ set: (any TokenStage, [Float]) -> Void) {
    precondition(
      values.count == stages.reduce(0) { $0 + $1.parameters.count }, "\(values.count) numbers for other stages")
    var start = 0
    for stage in stages {
      let count = stage.parameters.count
      set(stage, Array(values[start..<start + count]))
      start += count
    }
  }

  /// What a checkpoint must hold besides parameters: `[stages, (fingerprint, count, numbers …) …]`.
  public var state: [UInt64] {
    [UInt64(stages.count)]
      + stages.flatMap { stage in
        let state = stage.state
        return [stage.fingerprint, UInt64(state.count)] + state
      }
  }

  /// Continues from a ``state``, bit for bit. Where a stage refuses its part, those before it take back the state they had.
  /// - Throws: `checkpointMismatch` naming the first stage that is another one there, and what a stage throws.
  public func restore(_ state: [UInt64]) throws(CrosspointError) {
    func mismatch(_ argument: String, _ message: String) -> CrosspointError {
      CrosspointError(.checkpointMismatch, operation: "TokenPipeline", argument: argument, message)
    }
    guard state.first == UInt64(stages.count) else {
      let names = stages.map(\.configuration).joined(separator: ", ")
      throw mismatch("stages", "\(stages.count) here (\(names)), \(state.first ?? 0) there")
    }
    var parts: [ArraySlice<UInt64>] = []
    var rest = state.dropFirst()
    for (place, stage) in stages.enumerated() {
      guard rest.first == stage.fingerprint else {
        throw mismatch(stage.name, "stage \(place) is \(stage.configuration) here and another one there")
      }
      guard rest.count >= 2, let count = Int(exactly: rest[rest.startIndex + 1]), count <= rest.count - 2 else {
        throw mismatch(stage.name, "stage \(place), \(stage.configuration): the state ends early")
      }
      parts.append(rest.dropFirst(2).prefix(count))
      rest = rest.dropFirst(2 + count)
    }
    guard rest.isEmpty else { throw mismatch("state", "\(rest.count) numbers are left over") }
    let before = stages.map(\.state)
    for (place, part) in parts.enumerated() {
      do throws(CrosspointError) {
        try stages[place].restore(Array(part))
      } catch {
        for earlier in 0..<place { try stages[earlier].restore(before[earlier]) }
        throw error
      }
    }
  }
}

extension TokenStage {
  /// FNV-1a of the configuration and the number of parameters.
  fileprivate var fingerprint: UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in "\(configuration);\(parameters.count)".utf8 {
      hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
    }
    return hash
  }
}
