import Crosspoint
import CrosspointFiles

extension Trainer {
  /// What must be equal for a checkpoint to be continued.
  private var configuration: [[String]] { options.pairs.map { [$0.key, $0.value] } + [["data", corpus.name]] }

  /// Writes everything that the next step depends on. Collective: rank 0 gathers and writes.
  /// - Throws: `file`, on every rank; then an older checkpoint is still whole.
  package func saveCheckpoint(_ path: String) throws(CrosspointError) {
    let blocks = try gather(model.experts.all) { [shape = options.shape, fabric] rank throws(CrosspointError) in
      3 * (try LanguageModel.expertSpecifications(shape, rank: rank, of: fabric.rankCount).reduce(0) { $0 + $1.count })
    }
    try fabric.onRoot(operation: "checkpoint") { () throws(CrosspointError) in
      var tensors = Self.tensors(model.shared.specifications, model.shared.all)
      for (rank, block) in blocks.enumerated() {
        let specifications = try LanguageModel.expertSpecifications(options.shape, rank: rank, of: fabric.rankCount)
        tensors += Self.tensors(specifications, block.storage)
      }
      let header = Checkpoint.Header(
        configuration: configuration, progress: progress, stages: model.stageState,
        tensors: tensors.map(\.tensor), exchanges: exchanges.map(\.state))
      try Checkpoint.write(header, tensors.flatMap(\.floats), to: path)
    }
  }

  /// Continues where a checkpoint was written, bit for bit if the rank count is the same. Collective.
  /// - Throws: `file` for what is no whole checkpoint, `checkpointMismatch` naming the first option that differs.
  package func resume(_ path: String) throws(CrosspointError) {
    try resume(try Checkpoint.load(path, fabric: fabric), path: path)
  }

  /// The same, of a checkpoint that every rank has. Collective.
  package func resume(_ checkpoint: Checkpoint, path: String) throws(CrosspointError) {
    try fabric.together(operation: "resume") { () throws(CrosspointError) in
      try adopt(checkpoint, path: path)
    }
  }

  private func adopt(_ checkpoint: Checkpoint, path: String) throws(CrosspointError) {
    for pair in configuration where checkpoint.options[pair[0]] != pair[1] {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: pair[0],
        "\(pair[1]) here, \(checkpoint.options[pair[0]] ?? "unknown") in \(path); give the same or start without --resume"
      )
    }
    try restore(checkpoint)
    guard progress.step <= options.steps else {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: "step",
        "step \(progress.step) of a run of \(options.steps) steps in \(path)")
    }
    try restoreExchanges(checkpoint, path: path)
  }

  /// Takes what a checkpoint's exchanges have learned.
  func restoreExchanges(_ checkpoint: Checkpoint, path: String) throws(CrosspointError) {
    let states = checkpoint.header.exchanges
    guard states.count == exchanges.count else {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: "exchanges",
        "\(states.count) in \(path) where the model has \(exchanges.count)")
    }
    for (exchange, state) in zip(exchanges, states) { try exchange.restore(state) }
  }

  /// Takes a checkpoint's tensors, the state of its stages and how far it has come, and nothing else of it.
  func restore(_ checkpoint: Checkpoint) throws(CrosspointError) {
    try checkpoint.restore(model.shared)
    try checkpoint.restore(model.experts)
    try model.restoreStages(checkpoint.header.stages)
    let theirs = checkpoint.header.progress
    collectMovement()
    guard theirs.moved.counts(sameAs: moved), theirs.beforeLastQuarter.counts(sameAs: moved) else {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: "progress", "what it counts is of another model's stages")
    }
    progress = theirs
  }

  /// On rank 0 every rank's floats, `count` of each rank; nothing elsewhere. Collective.
  private func gather(
    _ mine: UnsafeMutableBufferPointer<Float>, count: (Int) throws(CrosspointError) -> Int
  ) throws(CrosspointError) -> [FloatBuffer] {
    var blocks: [FloatBuffer] = []
    if fabric.rank == 0 {
      for rank in 0..<fabric.rankCount { blocks.append(try FloatBuffer(count(rank))) }
    }
    let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
    let send = (0..<fabric.rankCount).map { $0 == 0 ? UnsafeRawBufferPointer(mine) : nothing }
    let receive = (0..<fabric.rankCount).map {
      blocks.isEmpty
        ? UnsafeMutableRawBufferPointer(start: nil, count: 0) : UnsafeMutableRawBufferPointer(blocks[$0].storage)
    }
    try fabric.exchange(send: send, receive: receive, operation: "checkpoint")
    return blocks
  }

  /// The tensors of a set's memory: `[values | first moments | second moments]`.
  private static func tensors(
    _ specifications: [ParameterSpecification], _ all: UnsafeMutableBufferPointer<Float>
  ) -> [(tensor: Checkpoint.Header.Tensor, floats: [UnsafeRawBufferPointer])] {
    var start = 0
    return specifications.map { specification in
      defer { start += specification.count }
      let parts = (0..<3).map { part in
        let from = part * all.count / 3 + start
        return UnsafeRawBufferPointer(UnsafeMutableBufferPointer(rebasing: all[from..<from + specification.count]))
      }
      return (Checkpoint.Header.Tensor(name: specification.name, count: specification.count), parts)
    }
  }
}

extension Checkpoint {
  /// Rank 0 reads the file for all. Collective.
  static func load(_ path: String, fabric: any Fabric) throws(CrosspointError) -> Checkpoint {
    let bytes = try fabric.shareFromRoot(operation: "checkpoint") { () throws(CrosspointError) in
      try readFile(path, argument: "checkpoint")
    }
    return try fabric.together(operation: "checkpoint") { () throws(CrosspointError) in
      try Checkpoint(bytes, path: path)
    }
  }
}
