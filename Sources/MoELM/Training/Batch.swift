import CrosspointCore

/// Whole sequences of one rank, one after the other: what the model reads and what it should say.
struct Batch {
  /// Bytes as the text has them.
  var inputs: [UInt8] = []
  /// What the model should predict at each place: the next byte, or under the masked objective the byte itself.
  var targets: [UInt8] = []
  /// Which inputs the model must not see; empty under the causal objective.
  var masked: [Bool] = []

  var rows: Int { inputs.count }

  /// The row of the embedding that stands for a place.
  func symbol(_ row: Int) -> Int { isMasked(row) ? ModelShape.vocabulary : Int(inputs[row]) }

  /// Whether the loss counts a place.
  func counts(_ row: Int) -> Bool { masked.isEmpty || masked[row] }

  private func isMasked(_ row: Int) -> Bool { !masked.isEmpty && masked[row] }

  /// Space for `sequences` of `shape`, contents to be filled in.
  mutating func resize(_ sequences: Int, _ shape: ModelShape) {
    let count = sequences * shape.context
    if inputs.count != count {
      inputs = [UInt8](repeating: 0, count: count)
      targets = inputs
    }
    let flags = shape.objective == .masked ? count : 0
    if masked.count != flags { masked = [Bool](repeating: false, count: flags) }
  }

  /// Lets inputs and targets be written where there are any.
  mutating func withPointers(_ body: (UnsafeMutablePointer<UInt8>, UnsafeMutablePointer<UInt8>) -> Void) {
    inputs.withUnsafeMutableBufferPointer { inputs in
      targets.withUnsafeMutableBufferPointer { targets in
        if let inputs = inputs.baseAddress, let targets = targets.baseAddress { body(inputs, targets) }
      }
    }
  }

  /// Masks `count` places of one sequence, drawn without repetition, and makes its targets the bytes themselves.
  mutating func mask(_ sequence: Range<Int>, count: Int, generator: inout SplitMix64) {
    targets.replaceSubrange(sequence, with: inputs[sequence])
    // Vitter's selection sampling: each place is taken with the chance that keeps the total exact.
    var wanted = count
    for (passed, row) in sequence.enumerated() {
      let left = sequence.count - passed
      masked[row] = generator.next() % UInt64(left) < UInt64(wanted)
      if masked[row] { wanted -= 1 }
    }
  }
}
