import Crosspoint
import CrosspointBaseline

/// Rows travel through the baseline: pack + MPI_Alltoallv + unpack. It checks nothing.
final class PlainExpertTransport: ExpertTransport {
  private let exchange: PlainExchange
  private let layout: ExpertLayout
  private let pool = BufferPool()
  private var received: TokenBatch
  private var outputRows: TokenBatch
  private var gradientRows: TokenBatch
  private var moved = Traffic()

  init(fabric: any Fabric, layout: ExpertLayout) {
    self.layout = layout
    exchange = PlainExchange(fabric: fabric, layout: layout)
    received = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
    outputRows = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
    gradientRows = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
  }

  var localExperts: Range<Int> { exchange.localExperts }
  var rows: Matrix { Matrix(received) }
  var rowsPerExpert: [Int] { exchange.rowsPerExpert }
  var topkWeightGradients: [Float] { exchange.topkWeightGradients }

  func dispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing, labels: [Int32]?, meanwhile work: LocalWork
  ) throws(CrosspointError) {
    received = try exchange.dispatch(tokens, routing)
    count(exchange.sentAway, bytes: exchange.countBytes)
    moved.rowsRouted += Double(exchange.sentRows.reduce(0, +))
    moved.rowsSent = moved.rowsRouted
    while try work() {}
  }

  func outputs() throws(CrosspointError) -> TokenBatch {
    outputRows = try TokenBatch(uninitializedRows: received.rows, hidden: layout.hidden, pool: pool)
    return TokenBatch(viewing: outputRows)
  }

  func combine() throws(CrosspointError) -> TokenBatch {
    count(exchange.receivedAway)
    return try exchange.combine(outputRows)
  }

  func combineBackward(_ dy: borrowing TokenBatch, meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch {
    let dOutput = try exchange.combineBackward(dy)
    count(exchange.sentAway)
    while try work() {}
    return dOutput
  }

  func rowGradients() throws(CrosspointError) -> TokenBatch {
    gradientRows = try TokenBatch(uninitializedRows: received.rows, hidden: layout.hidden, pool: pool)
    return TokenBatch(viewing: gradientRows)
  }

  func dispatchBackward(meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch {
    count(exchange.receivedAway)
    let dx = try exchange.dispatchBackward(gradientRows)
    while try work() {}
    return dx
  }

  func settle() {}

  func forget() {
    received = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
  }

  func takeTraffic(into traffic: inout Traffic) {
    traffic.wireBytes += moved.wireBytes
    traffic.routedBytes += moved.routedBytes
    traffic.rowsSent += moved.rowsSent
    traffic.rowsRouted += moved.rowsRouted
    moved = Traffic()
  }

  func takeSeconds(_ body: (StepClock.Part, Double) -> Void) {
    body(.pack, exchange.seconds.pack)
    body(.move, exchange.seconds.move)
    body(.unpack, exchange.seconds.unpack)
    body(.sum, exchange.seconds.sum)
    exchange.seconds = .init()
  }

  /// Counts a transfer: the rows that left this rank, and what else did.
  private func count(_ rows: Int, bytes: Int = 0) {
    moved.wireBytes += Double(4 * layout.hidden * rows + bytes)
    moved.routedBytes += Double(4 * layout.hidden * exchange.sentAway)
  }
}
