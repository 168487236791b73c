import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTokens

/// One micro-batch of a rank.
public struct MicroBatch {
  public let tokens: Int
  public let hidden: Int
  public let routing: Routing
  public let seed: UInt64

  public init(tokens: Int, hidden: Int, topK: Int, experts: Int, seed: UInt64) throws(CrosspointError) {
    (self.tokens, self.hidden, self.seed) = (tokens, hidden, seed)
    routing = try randomRouting(tokens: tokens, topK: topK, experts: experts, seed: seed)
  }

  public func rows() throws(CrosspointError) -> TokenBatch {
    try clusteredBatch(rows: tokens, hidden: hidden, seed: seed)
  }

  public func gradients() throws(CrosspointError) -> TokenBatch {
    try randomBatch(rows: tokens, hidden: hidden, seed: seed + 1)
  }
}

private final class Held {
  let rows: TokenBatch
  init(_ rows: consuming TokenBatch) { self.rows = rows }
}

/// The steps of some micro-batches, all transfers of a kind under way at once; micro-batch i goes through `exchanges[i % n]`.
///
/// They are begun in order, and finished in order or the other way round.
/// - Parameter between: called while transfers are under way.
public func overlappedSteps(
  _ exchanges: [ExpertExchange], _ batches: [MicroBatch], reversed: Bool = false, inPlace: Bool = false,
  between: () throws -> Void = {}
) throws -> [StepResult] {
  let order = reversed ? Array(batches.indices.reversed()) : Array(batches.indices)
  func exchange(_ index: Int) -> ExpertExchange { exchanges[index % exchanges.count] }
  let experts = ToyExperts()
  var kept: [Held] = []
  func keep(_ rows: consuming TokenBatch) -> Held {
    kept.append(Held(rows))
    return kept.last!
  }

  var begun: [PendingBox] = []
  for (index, batch) in batches.enumerated() {
    begun.append(PendingBox(try exchange(index).beginDispatch(keep(try batch.rows()).rows, batch.routing)))
  }
  try between()
  var handles = [DispatchHandle?](repeating: nil, count: batches.count)
  for index in order { handles[index] = try begun[index].finishDispatch() }

  func transferRows(_ begin: (_ index: Int, _ handle: DispatchHandle) throws -> PendingBox) throws -> [Held] {
    var begun: [PendingBox] = []
    for index in batches.indices { begun.append(try begin(index, handles[index]!)) }
    try between()
    var rows = [Held?](repeating: nil, count: batches.count)
    for index in order { rows[index] = Held(try begun[index].finishRows()) }
    return rows.map { $0! }
  }
  let y = try transferRows { index, handle in
    let output = keep(
      try experts.forward(
        handle.rows, rowsPerExpert: handle.rowsPerExpert, firstExpert: exchange(index).localExperts.lowerBound))
    guard inPlace else { return PendingBox(try exchange(index).beginCombine(output.rows, handle)) }
    _ = try handle.outputs().elements.update(fromContentsOf: output.rows.elements)
    return PendingBox(try exchange(index).beginCombine(handle.outputs(), handle))
  }
  let dOutputs = try transferRows { index, handle in
    PendingBox(try exchange(index).beginCombineBackward(keep(try batches[index].gradients()).rows, handle))
  }
  let dTokens = try transferRows { index, handle in
    let dRows = keep(
      try experts.backward(
        handle.rows, dOutputs[index].rows, rowsPerExpert: handle.rowsPerExpert,
        firstExpert: exchange(index).localExperts.lowerBound))
    guard inPlace else { return PendingBox(try exchange(index).beginDispatchBackward(dRows.rows, handle)) }
    _ = try handle.rowGradients().elements.update(fromContentsOf: dRows.rows.elements)
    return PendingBox(try exchange(index).beginDispatchBackward(handle.rowGradients(), handle))
  }
  return batches.indices.map { index in
    StepResult(
      y: y[index].rows.array, tokenGradients: dTokens[index].rows.array,
      weightGradients: handles[index]!.topkWeightGradients,
      compensationGradients: exchange(index).compensator.gradients, rowOrigins: handles[index]!.rows.array)
  }
}

/// The same, one transfer after the other.
public func plainSteps(_ exchanges: [ExpertExchange], _ batches: [MicroBatch]) throws -> [StepResult] {
  var results: [StepResult] = []
  for (index, batch) in batches.enumerated() {
    results.append(
      try trainingStep(
        exchanges[index % exchanges.count], tokens: batch.rows(), routing: batch.routing, dy: batch.gradients()))
  }
  for index in results.indices {
    results[index].compensationGradients = exchanges[index % exchanges.count].compensator.gradients
  }
  return results
}

/// What is pending, in an array: arrays hold no move-only values.
private final class PendingBox {
  private var dispatch: PendingDispatch?
  private var rows: PendingRows?

  init(_ dispatch: consuming PendingDispatch) { self.dispatch = consume dispatch }
  init(_ rows: consuming PendingRows) { self.rows = consume rows }

  func finishDispatch() throws(CrosspointError) -> DispatchHandle { try dispatch.take()!.finish() }
  func finishRows() throws(CrosspointError) -> TokenBatch { try rows.take()!.finish() }
}
