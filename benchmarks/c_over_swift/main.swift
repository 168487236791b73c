// What C adds to Swift: the four transfers of one rank through crosspoint.h and through Swift's own interface, by turns, in one
// process. Nothing has to go to another rank, so what is left is the calls and the copies of rows within this one.
//
//   swift build -c release --product c-over-swift && .build/release/c-over-swift
//
// Columns: median over steps of the time of a step; C / Swift: median of the ratios by step.

import CCrosspoint
import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTokens

/// Tokens of one rank, routed among four experts that change nothing, and memory for the results: the same for both sides.
struct Layer {
  let tokens: Int
  let hidden: Int
  let topK: Int
  let x: UnsafeMutableBufferPointer<Float>
  let y: UnsafeMutableBufferPointer<Float>
  static let experts = 4

  init(tokens: Int, hidden: Int, topK: Int) {
    (self.tokens, self.hidden, self.topK) = (tokens, hidden, topK)
    x = .allocate(capacity: tokens * hidden)
    y = .allocate(capacity: tokens * hidden)
    _ = x.initialize(from: (0..<tokens * hidden).lazy.map { 1 / Float(1 + $0) })
    y.initialize(repeating: 0)
  }

  var indices: [Int32] { (0..<tokens * topK).map { Int32(($0 + $0 / topK) % Self.experts) } }
  var weights: [Float] { Array(repeating: 1 / Float(topK), count: tokens * topK) }
}

/// A step, and the gradients of its weights.
typealias Side = (step: () throws -> Void, gradients: () -> [Float])

/// Through Swift's interface.
func swiftSide(_ layer: Layer) throws -> Side {
  let fabric = SimulatedRanks(SimulatedCluster(ranks: 1)).fabric(0)
  let exchange = try ExpertExchange(
    fabric: fabric, layout: ExpertLayout(experts: Layer.experts, hidden: layer.hidden))
  let (indices, weights, x, y) = (layer.indices, layer.weights, layer.x, layer.y)
  var weightGradients: [Float] = []
  func step() throws {
    let tokens = try TokenBatch(viewing: x, hidden: layer.hidden)
    let result = try TokenBatch(viewing: y, hidden: layer.hidden)
    let routing = try Routing(
      topkIndices: indices, topkWeights: weights, topK: layer.topK, experts: Layer.experts)
    let handle = try exchange.dispatch(tokens, routing)
    try exchange.combine(handle.rows, handle, into: result)
    let gradients = try exchange.combineBackward(tokens, handle)
    try exchange.dispatchBackward(gradients, handle, into: result)
    weightGradients = handle.topkWeightGradients
  }
  return (step, { weightGradients })
}

/// Through crosspoint.h.
func cSide(_ layer: Layer) throws -> Side {
  func check(_ status: crosspoint_status) throws {
    if status != CROSSPOINT_OK { throw Failure(status: status) }
  }
  var (cluster, fabric, exchange): (OpaquePointer?, OpaquePointer?, OpaquePointer?)
  try check(crosspoint_cluster_create(1, 1, nil, &cluster))
  try check(crosspoint_cluster_fabric(cluster, 0, &fabric))
  try check(crosspoint_exchange_create(fabric, Int64(Layer.experts), Int64(layer.hidden), 0, nil, &exchange))
  let (indices, weights, x, y) = (layer.indices, layer.weights, layer.x, layer.y)
  func rows(_ memory: UnsafeMutableBufferPointer<Float>) -> crosspoint_rows {
    var rows = crosspoint_rows()
    rows.size = UInt32(MemoryLayout<crosspoint_rows>.size)
    rows.version = UInt32(CROSSPOINT_INTERFACE)
    rows.data = UnsafeMutableRawPointer(memory.baseAddress)
    rows.rows = Int64(layer.tokens)
    rows.columns = Int64(layer.hidden)
    return rows
  }
  let weightGradients = UnsafeMutableBufferPointer<Float>.allocate(capacity: layer.tokens * layer.topK)
  func step() throws {
    var (tokens, result, received, gradients) = (rows(x), rows(y), rows(x), rows(x))
    var handle: OpaquePointer?
    try indices.withUnsafeBufferPointer { indices in
      try weights.withUnsafeBufferPointer { weights in
        var routing = crosspoint_routing()
        routing.size = UInt32(MemoryLayout<crosspoint_routing>.size)
        routing.version = UInt32(CROSSPOINT_INTERFACE)
        routing.experts = indices.baseAddress
        routing.weights = weights.baseAddress
        routing.tokens = Int64(layer.tokens)
        routing.top_k = Int32(layer.topK)
        try check(crosspoint_dispatch(exchange, &tokens, &routing, &handle))
      }
    }
    defer { crosspoint_handle_free(handle) }
    try check(crosspoint_handle_rows(handle, &received))
    try check(crosspoint_combine(exchange, handle, &received, &result))
    try check(crosspoint_combine_backward(exchange, handle, &tokens, &gradients))
    try check(crosspoint_dispatch_backward(exchange, handle, &gradients, &result))
    try check(
      crosspoint_handle_weight_gradients(handle, weightGradients.baseAddress, Int64(weightGradients.count)))
  }
  return (step, { Array(weightGradients) })
}

struct Failure: Error { let status: crosspoint_status }

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

func padded(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }

func figure(_ value: Double, _ digits: Int) -> String {
  let scale = (0..<digits).reduce(1.0) { scale, _ in 10 * scale }
  let whole = Int((value * scale).rounded())
  let fraction = String(whole % Int(scale))
  return "\(whole / Int(scale)).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
}

print("tokens hidden top-k    Swift (µs)        C (µs)  C / Swift")
for (layer, steps) in [
  (Layer(tokens: 1, hidden: 8, topK: 1), 20000), (Layer(tokens: 64, hidden: 256, topK: 2), 5000),
  (Layer(tokens: 1024, hidden: 1024, topK: 2), 200),
] {
  let sides = [try swiftSide(layer), try cSide(layer)]
  var seconds: [[Double]] = [[], []]
  for step in 0..<steps + 100 {
    for turn in 0..<2 {
      let side = (turn + step) % 2
      var watch = Stopwatch()
      try sides[side].step()
      let lap = watch.lap()
      if step >= 100 { seconds[side].append(lap) }
    }
  }
  precondition(sides[0].gradients() == sides[1].gradients(), "other gradients")
  let ratio = median(zip(seconds[1], seconds[0]).map { $0 / $1 })
  print(
    padded("\(layer.tokens)", 6), padded("\(layer.hidden)", 6), padded("\(layer.topK)", 5),
    padded(figure(median(seconds[0]) * 1e6, 2), 13), padded(figure(median(seconds[1]) * 1e6, 2), 13),
    padded(figure(ratio, 3), 10))
}
