import CrosspointCore
import CrosspointExchange
import CrosspointRouting
import CrosspointTokens

/// ``trainingStep(_:tokens:routing:dy:labels:inPlace:meanwhile:)`` whose experts work in waves.
/// - Parameter seen: hears of each wave before the experts do.
public func wavedStep(
  _ exchange: ExpertExchange, tokens: borrowing TokenBatch, routing: Routing, dy: borrowing TokenBatch,
  labels: [Int32]? = nil,
  seen: (TransferKind, DispatchHandle, ExpertWave) throws(CrosspointError) -> Void = {
    _, _, _ throws(CrosspointError) in
  }
) throws(CrosspointError) -> StepResult {
  let experts = ToyExperts()
  let first = exchange.localExperts.lowerBound
  let handle = try exchange.dispatch(tokens, routing, labels: labels) { handle, wave throws(CrosspointError) in
    try seen(.dispatch, handle, wave)
    let output = try handle.outputs()
    for row in wave.rows {
      let result = experts.forward(Array(handle.rows.row(row)), expert: first + wave.expert)
      _ = output.row(row).update(fromContentsOf: result)
    }
  }
  // Where no wave came there may be no outputs yet.
  let y = try exchange.combine(handle.outputs(), handle)
  let dOutput = try exchange.combineBackward(dy, handle) { rows, wave throws(CrosspointError) in
    try seen(.combineBackward, handle, wave)
    let dRows = try handle.rowGradients()
    for row in wave.rows {
      let adjoint = experts.backward(
        Array(handle.rows.row(row)), Array(rows.row(row)), expert: first + wave.expert)
      _ = dRows.row(row).update(fromContentsOf: adjoint)
    }
  }
  _ = dOutput
  let dTokens = try exchange.dispatchBackward(handle.rowGradients(), handle)
  return StepResult(
    y: y.array, tokenGradients: dTokens.array, weightGradients: handle.topkWeightGradients,
    compensationGradients: exchange.compensator.gradients, rowOrigins: handle.rows.array)
}

/// The waves of one transfer, and whether they hand every row out.
public struct SeenWaves {
  public private(set) var waves: [ExpertWave] = []

  public init() {}

  public mutating func add(_ wave: ExpertWave) { waves.append(wave) }

  /// What is wrong with them, if anything: every row is to be in one wave, of its expert.
  public func flaw(rowsPerExpert: [Int]) -> String? {
    var times = [Int](repeating: 0, count: rowsPerExpert.reduce(0, +))
    for wave in waves {
      let start = rowsPerExpert[..<wave.expert].reduce(0, +)
      guard !wave.rows.isEmpty, wave.rows.lowerBound >= start,
        wave.rows.upperBound <= start + rowsPerExpert[wave.expert]
      else { return "\(wave) where experts have \(rowsPerExpert) rows" }
      for row in wave.rows { times[row] += 1 }
    }
    guard let row = times.firstIndex(where: { $0 != 1 }) else { return nil }
    return "row \(row) is in \(times[row]) waves"
  }
}
