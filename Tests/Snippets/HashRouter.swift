// snippet: router
import Crosspoint

/// Sends each token to experts that its id alone chooses (hash layers, arXiv 2106.04426).
struct HashRouter {
  let experts: Int
  let topK: Int

  /// `[T]` ids, one per token → K different experts each, with equal weights.
  func route(ids: [UInt64]) throws(CrosspointError) -> Routing {
    var indices: [Int32] = []
    for id in ids {
      var generator = SplitMix64(seed: id)
      let first = Int(generator.next() % UInt64(experts))
      for k in 0..<topK { indices.append(Int32((first + k) % experts)) }
    }
    let weights = [Float](repeating: 1 / Float(topK), count: indices.count)
    return try Routing(topkIndices: indices, topkWeights: weights, topK: topK, experts: experts)
  }
}
// end
