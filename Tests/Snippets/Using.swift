import Crosspoint
import Foundation

/// docs/using.md, beside the program of Layer.swift and main.swift.
func using() throws {
  try lookAtRows()
  try passBF16()
  try saveAndRestore()
  try beginAndFinish()
  try workInWaves()
  try breakOnPurpose()
  try expect(rowsAtEachRank() == [4, 4], "two ranks of two experts each get every second choice")
}

private func lookAtRows() throws {
  try SimulatedCluster(ranks: 2).run { fabric in
    let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 2, hidden: 4))
    let tokens = try TokenBatch([Float](repeating: 1, count: 4 * 4), hidden: 4)
    let routing = try Routing(
      topkIndices: [0, 1, 0, 1], topkWeights: [1, 1, 1, 1], topK: 1, experts: 2)
    let handle = try exchange.dispatch(tokens, routing)

    // snippet: rows
    func energy(_ batch: borrowing TokenBatch) -> Float {
      batch.elements.reduce(0) { $0 + $1 * $1 }
    }

    let count = handle.rows.rows  // a number
    let first = handle.rows.row(0)  // the floats of one row, in place
    let total = energy(handle.rows)  // lent to a function for the call
    let copy = try TokenBatch(handle.rows.array, hidden: handle.rows.hidden)  // a batch of your own
    // end

    try expect(count == 4 && first.count == 4 && total == 16 && copy.rows == 4, "four rows of ones")
  }
}

/// Experts that give back what they get.
private func expertsOfBF16(_ rows: UnsafeMutableRawBufferPointer, into outputs: UnsafeMutableRawBufferPointer) {
  outputs.copyMemory(from: UnsafeRawBufferPointer(rows))
}

private func passBF16() throws {
  try SimulatedCluster(ranks: 2).run { fabric in
    let layout = try ExpertLayout(experts: 2, hidden: 4)
    let routing = try Routing(
      topkIndices: [0, 1, 0, 1], topkWeights: [1, 1, 1, 1], topK: 1, experts: 2)
    let activations = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * 4 * 4, alignment: 2)
    defer { activations.deallocate() }
    _ = activations.initializeMemory(as: UInt16.self, repeating: 0x3F80)

    // snippet: bf16
    let exchange = try ExpertExchange(
      fabric: fabric, layout: layout, options: ExchangeOptions(rows: .bf16))
    let tokens = try TokenBatch(viewing: activations, hidden: 4, type: .bf16)  // your bytes
    let handle = try exchange.dispatch(tokens, routing)
    try expertsOfBF16(handle.rows.bytes, into: handle.outputs().bytes)
    let y = try exchange.combine(handle)  // y.type is .bf16
    let values = y.array  // a copy as floats
    // end

    try expect(y.type == .bf16 && values.allSatisfy { $0 == 1 }, "four rows of ones")
  }
}

private func beginAndFinish() throws {
  try SimulatedCluster(ranks: 2).run { fabric in
    let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 2, hidden: 4))
    let tokens = try TokenBatch([Float](repeating: 1, count: 4 * 4), hidden: 4)
    let later = try TokenBatch([Float](repeating: 2, count: 4 * 4), hidden: 4)
    let routing = try Routing(
      topkIndices: [0, 1, 0, 1], topkWeights: [1, 1, 1, 1], topK: 1, experts: 2)

    // snippet: overlap
    let first = try exchange.beginDispatch(tokens, routing)
    let second = try exchange.beginDispatch(later, routing)
    let handles = [try first.finish(), try second.finish()]
    let sums = try exchange.beginCombine(handles[0].rows, handles[0])
    let rows = handles[1].rows.array.map { 2 * $0 }  // while the outputs of the first travel
    let y = try sums.finish()
    // end

    try expect(y.array == tokens.array && rows.allSatisfy { $0 == 4 }, "each its own rows")
  }
}

/// Writes twice what some rows hold.
private func double(_ rows: borrowing TokenBatch, _ range: Range<Int>, into results: borrowing TokenBatch) {
  for row in range {
    for column in 0..<rows.hidden { results.row(row)[column] = 2 * rows.row(row)[column] }
  }
}

private func workInWaves() throws {
  try SimulatedCluster(ranks: 2).run { fabric in
    let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 2, hidden: 4))
    let tokens = try TokenBatch([Float](repeating: 1, count: 4 * 4), hidden: 4)
    let routing = try Routing(
      topkIndices: [0, 1, 0, 1], topkWeights: [1, 1, 1, 1], topK: 1, experts: 2)

    // snippet: waves
    let handle = try exchange.dispatch(tokens, routing) { handle, wave throws(CrosspointError) in
      try double(handle.rows, wave.rows, into: handle.outputs())  // of expert number wave.expert
    }
    let y = try exchange.combine(handle)
    let dOutput = try exchange.combineBackward(y, handle) { rows, wave throws(CrosspointError) in
      try double(rows, wave.rows, into: handle.rowGradients())
    }
    let dTokens = try exchange.dispatchBackward(handle)
    // end

    try expect(dOutput.rows == 4 && dTokens.elements.allSatisfy { $0 == 4 }, "twice forward, twice backward")
  }
}

private func saveAndRestore() throws {
  try SimulatedCluster(ranks: 2).run { fabric in
    let layout = try ExpertLayout(experts: 2, hidden: 4)
    let options = ExchangeOptions(policy: .budget(bytes: 0.3))
    let exchange = try ExpertExchange(fabric: fabric, layout: layout, options: options)
    let tokens = try TokenBatch([Float](repeating: 1, count: 4 * 4), hidden: 4)
    let routing = try Routing(
      topkIndices: [0, 1, 0, 1], topkWeights: [1, 1, 1, 1], topK: 1, experts: 2)
    _ = try exchange.dispatch(tokens, routing)

    // snippet: state
    let saved = try JSONEncoder().encode(exchange.state)

    let resumed = try ExpertExchange(fabric: fabric, layout: layout, options: options)
    try resumed.restore(JSONDecoder().decode(ExchangeState.self, from: saved))
    // end

    try expect(resumed.state == exchange.state, "what was saved is what goes on")
  }
}

private func breakOnPurpose() throws {
  // snippet: faults
  var cluster = SimulatedCluster(ranks: 4, deadline: .milliseconds(300))
  cluster.link = LinkModel(latency: .microseconds(50), bytesPerSecond: 125e6)
  cluster.ranksPerNode = 2  // ranks of a node share memory
  cluster.faults = [.silent(2, fromExchange: 7)]
  let results = cluster.results { fabric in try train(fabric) }
  // end

  try expect(results.count == 4, "a result for each rank")
  for (rank, result) in results.enumerated() {
    guard case .failure(let error as CrosspointError) = result else {
      throw SnippetFailure(description: "rank \(rank) did not fail")
    }
    try expect(error.rank == 2 || rank == 2, "rank \(rank) names rank 2: \(error)")
  }
}
