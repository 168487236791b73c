import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens

/// Several exchanges of the fabric under way, finished in another order than begun, with others begun and finished between.
func fabricOverlap(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for size in [0, 1, 3000, 100_000] {
    let count = 5
    func byte(_ exchange: Int, from source: Int, to target: Int) -> UInt8 {
      UInt8(truncatingIfNeeded: 50 * exchange + 7 * source + target)
    }
    var memory: [(send: [UnsafeMutableRawBufferPointer], receive: [UnsafeMutableRawBufferPointer])] = []
    defer { for all in memory { for block in all.send + all.receive { block.deallocate() } } }
    var numbers: [Int] = []
    for exchange in 0..<count {
      let blocks = (0..<ranks.count).map { peer -> UnsafeMutableRawBufferPointer in
        let block = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 64)
        block.initializeMemory(as: UInt8.self, repeating: byte(exchange, from: ranks.rank, to: peer))
        return block
      }
      let places = blocks.map { _ in UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 64) }
      memory.append((blocks, places))
      numbers.append(
        try fabric.beginExchange(
          send: blocks.map { UnsafeRawBufferPointer($0) }, receive: places, slack: 0, operation: "overlap"))
    }
    for exchange in [3, 0, 4, 2, 1] {
      var sum = [Float(1)]
      try sum.withUnsafeMutableBufferPointer { try fabric.allreduce($0, operation: "between") }
      try ranks.expect(sum, is: [Float(ranks.count)], "a sum between")
      var arrived: [Int] = []
      try fabric.finishExchange(numbers[exchange], arrived: { arrived.append($0) }, meanwhile: { false })
      try ranks.expect(arrived.sorted(), is: Array(0..<ranks.count), "who has arrived")
      for source in 0..<ranks.count {
        let isRight = memory[exchange].receive[source].allSatisfy {
          $0 == byte(exchange, from: source, to: ranks.rank)
        }
        try ranks.expect(isRight, "the bytes of exchange \(exchange) from rank \(source)")
      }
    }
  }
}

/// Micro-batches under way at once, of one exchange and of two on communicators of their own, have the bits of one after the
/// other.
func exchangeOverlap(_ ranks: Ranks) throws {
  let fabrics = [try ranks.fabric(), try ranks.fabric()]
  for copies in ExchangeOptions.Copies.all(ranks: ranks.count) {
    // Bodies that travel with their announcements, and others.
    for (agreement, smallBytes) in [(ExchangeOptions.Agreement.deferred, Int?.none), (.immediate, 0)] {
      let options = ExchangeOptions(copies: copies, agreement: agreement)
      let exchanges = try fabrics.map {
        try ExpertExchange(
          fabric: $0, layout: ExpertLayout(experts: 5, hidden: 16), options: options, smallBytes: smallBytes)
      }
      let batches = try (0..<3).map {
        try MicroBatch(
          tokens: 30 * ((ranks.rank + $0) % 3), hidden: 16, topK: 2, experts: 5,
          seed: UInt64(10 * $0 + ranks.rank))
      }
      for used in [[exchanges[0]], exchanges] {
        let expected = try plainSteps(used, batches)
        for reversed in [false, true] {
          let steps = try overlappedSteps(used, batches, reversed: reversed, inPlace: reversed)
          for (one, other) in zip(steps, expected) {
            try ranks.expect(one.isBitwiseEqual(to: other), "\(copies), \(agreement): the same bits")
          }
        }
        for exchange in used { try exchange.settle() }
      }
    }
  }
}
