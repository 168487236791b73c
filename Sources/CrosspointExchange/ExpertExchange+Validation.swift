import CrosspointCompression
import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// What is checked on this rank before a transfer; the result travels to the others.
extension ExpertExchange {
  private func error(_ code: CrosspointError.Code, _ argument: String, _ message: String) -> CrosspointError {
    CrosspointError(
      code, operation: "\(transfer.kind.operation)", rank: fabric.rank, argument: argument, message)
  }

  func misuse(_ message: String) -> CrosspointError { error(.handleMisuse, "handle", message) }

  private func invalid(_ argument: String, _ message: String) -> CrosspointError {
    error(.invalidArgument, argument, message)
  }

  func problem(tokens: borrowing TokenBatch, routing: Routing) -> CrosspointError? {
    if routing.experts != layout.experts {
      return invalid("routing", "\(routing.experts) experts, the layout has \(layout.experts)")
    }
    if routing.tokens != tokens.rows {
      return invalid("routing", "\(routing.tokens) tokens routed, the batch has \(tokens.rows)")
    }
    if Int32(exactly: routing.topkIndices.count) == nil {
      return invalid("routing", "\(routing.topkIndices.count) routed pairs exceed \(Int32.max)")
    }
    if let problem = problem("tokens", tokens, rows: routing.tokens) { return problem }
    guard options.nonFinite == .error else { return nil }
    // Clusters mix rows, so their tokens are checked first, also where it is still open whether there will be any.
    // Without clusters each row is checked as it is sent.
    if clusterer != nil, let problem = checked("tokens", tokens)?.problem(.dispatch, rank: fabric.rank) {
      return problem
    }
    for (slot, weight) in routing.topkWeights.enumerated() where !weight.isFinite && routing.topkIndices[slot] >= 0 {
      return CrosspointError(
        .nonFinite, operation: "dispatch", rank: fabric.rank, argument: "topkWeights",
        "token \(slot / routing.topK), choice \(slot % routing.topK) has weight \(weight)")
    }
    return nil
  }

  func problem(labels: [Int32]?, tokens: Int) -> CrosspointError? {
    guard let labels else { return nil }
    if labels.count != tokens { return invalid("labels", "\(labels.count) labels for \(tokens) tokens") }
    return RowMemory.problem(labels: labels, of: "token").map { invalid("labels", $0) }
  }

  /// Shape of a batch that a caller hands in.
  func problem(_ argument: String, _ batch: borrowing TokenBatch, rows: Int) -> CrosspointError? {
    if batch.hidden != layout.hidden {
      return invalid(argument, "hidden \(batch.hidden), the layout has \(layout.hidden)")
    }
    if batch.rows != rows { return invalid(argument, "\(batch.rows) rows, \(rows) expected") }
    if batch.type != options.rows {
      return invalid(argument, "\(batch.type) rows, the exchange's options say \(options.rows)")
    }
    return nil
  }

  /// Rows for a result: in the caller's memory, or the exchange's.
  /// - Throws: `invalidArgument` for a wrong shape, `outOfMemory`.
  func room(_ memory: RowsView?, rows: Int) throws(CrosspointError) -> TokenBatch {
    guard let memory else { return try leaseRows(rows, options.rows) }
    let result = TokenBatch(viewing: memory)
    if let problem = problem("result", result, rows: rows) { throw problem }
    return result
  }

  /// The batch, if its values must be finite.
  func checked(_ argument: String, _ batch: borrowing TokenBatch) -> CheckedBatch? {
    guard options.nonFinite == .error else { return nil }
    return CheckedBatch(argument: argument, rows: batch.view)
  }

  /// Whether `handle` is this exchange's and at the right point of its life.
  func problem(_ handle: DispatchHandle, expects stage: DispatchHandle.Stage) -> CrosspointError? {
    if handle.owner != ObjectIdentifier(self) { return misuse("it was made by another exchange") }
    if handle.calls > 1 { return misuse("another transfer of it is under way: finish that one first") }
    if handle.stage != stage {
      return misuse("it is \(handle.stage.rawValue), \(stage.rawValue) expected: use a handle once, in order")
    }
    return nil
  }
}

/// A caller's batch whose values must be finite. Borrows its memory.
struct CheckedBatch {
  let argument: String
  let rows: RowsView

  /// Names the first value that is not finite or, if it is a row's that travels, beyond the bound of its format.
  func problem(_ kind: TransferKind, _ format: WireFormat = .fp32, rank: Int) -> CrosspointError? {
    let (values, hidden) = (rows.first, rows.hidden)
    let bound = format.bound(of: values.type)
    guard let index = AdmittedValues.finite.firstRefused(values, rows.rows * hidden, bound: bound) else { return nil }
    return CrosspointError(
      .nonFinite, operation: "\(kind.operation)", rank: rank, argument: argument,
      "row \(index / hidden), column \(index % hidden) is \(AdmittedValues.complaint(values[index], format))")
  }
}
