import Crosspoint

/// Rows travel through Crosspoint.
final class CrosspointTransport: ExpertTransport {
  let exchange: ExpertExchange
  /// What the exchange's compensation learns, if anything.
  private let compensation: Parameter?
  private var handle: DispatchHandle?

  /// Collective: makes the exchange.
  /// - Parameter compensation: finds the parameter that the compensation learns; called where it learns any.
  init(
    fabric: any Fabric, layout: ExpertLayout, options: ExchangeOptions, layer: Int, compensation: () -> Parameter
  ) throws(CrosspointError) {
    exchange = try ExpertExchange(fabric: fabric, layout: layout, options: options, layer: layer)
    self.compensation = exchange.compensator.parameters.isEmpty ? nil : compensation()
  }

  var localExperts: Range<Int> { exchange.localExperts }
  var rows: Matrix { Matrix(current.rows) }
  var rowsPerExpert: [Int] { current.rowsPerExpert }
  var topkWeightGradients: [Float] { current.topkWeightGradients }

  func dispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing, labels: [Int32]?, meanwhile work: LocalWork
  ) throws(CrosspointError) {
    if let compensation {
      exchange.compensator.parameters.withUnsafeMutableBufferPointer {
        _ = $0.update(fromContentsOf: compensation.value.floats)
      }
    }
    handle = try exchange.dispatch(tokens, routing, labels: labels, meanwhile: work)
  }

  func outputs() throws(CrosspointError) -> TokenBatch { try current.outputs() }

  func combine() throws(CrosspointError) -> TokenBatch { try exchange.combine(current) }

  func combineBackward(_ dy: borrowing TokenBatch, meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch {
    try exchange.combineBackward(dy, current, meanwhile: work)
  }

  func rowGradients() throws(CrosspointError) -> TokenBatch { try current.rowGradients() }

  func dispatchBackward(meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch {
    let dx = try exchange.dispatchBackward(current, meanwhile: work)
    if let compensation {
      for (i, gradient) in exchange.compensator.gradients.enumerated() { compensation.gradient.base[i] += gradient }
      exchange.compensator.resetGradients()
    }
    return dx
  }

  func settle() throws(CrosspointError) { try exchange.settle() }

  func forget() { handle = nil }

  func takeTraffic(into traffic: inout Traffic) {
    traffic.add(exchange.statistics)
    exchange.statistics.reset()
  }

  func takeSeconds(_ body: (StepClock.Part, Double) -> Void) {
    let seconds = exchange.statistics.seconds
    body(.hash, seconds.hash)
    body(.cluster, seconds.cluster)
    body(.encode, seconds.encode)
    body(.decode, seconds.decode)
    body(.skew, seconds.skew)
    body(.wait, seconds.wait)
    body(.policy, seconds.policy)
    exchange.statistics.seconds = .init()
  }

  private var current: DispatchHandle {
    guard let handle else { preconditionFailure("no dispatch to follow") }
    return handle
  }
}
