import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens

extension Tuning {
  /// Bytes that a rank sends in an exchange that is timed: large enough that a switch's buffers do not hide the line.
  private static let exchangeBytes = 1 << 21
  private static let shortBytes = 8
  /// What is timed of codes: fp32 is copied and sealed.
  static let formats = [WireFormat.fp32] + PolicyMenu.trials

  /// Times links and codes; every rank keeps what the slowest of all needs. Collective.
  ///
  /// - Parameter hidden: floats of the rows that are coded.
  package init(
    measuring fabric: any Fabric, hidden: Int, operation: StaticString
  ) throws(CrosspointError) {
    let agreement = Agreement(fabric: fabric)
    let pool = BufferPool()
    var (codes, failure): ([Double], CrosspointError?) = ([], nil)
    do throws(CrosspointError) {
      codes = try PolicySampler(codec: try RowCodec(hidden: hidden, seed: 0, pool: pool), pool: pool).timeCodes(
        Self.formats)
    } catch {
      failure = error
    }
    try agreement.settle(failure, operation: operation)
    let mine =
      codes + (try Self.time(fabric, pool, agreement, operation) { fabric.sharesMemory(with: $0) })
      + (try Self.time(fabric, pool, agreement, operation) { !fabric.sharesMemory(with: $0) })
    let all = try fabric.gather(mine, operation: operation)
    let slowest = mine.indices.map { index in all.reduce(0) { max($0, $1[index]) } }
    self.init(
      withinNode: Self.link(slowest[codes.count...]), betweenNodes: Self.link(slowest[(codes.count + 3)...]),
      codecs: Dictionary(uniqueKeysWithValues: zip(Self.formats.map { "\($0)" }, slowest)))
  }

  private static func link(_ numbers: ArraySlice<Double>) -> Link? {
    let numbers = Array(numbers.prefix(3))
    return numbers[0] == 0 ? nil : Link(peers: Int(numbers[0]), latency: numbers[1], secondsPerByte: numbers[2])
  }

  /// How many ranks are meant, seconds of a short exchange with them, and for each byte of a long one, at best of some; zeros
  /// where none are.
  private static func time(
    _ fabric: any Fabric, _ pool: BufferPool, _ agreement: Agreement, _ operation: StaticString,
    _ isMeant: (_ rank: Int) -> Bool
  ) throws(CrosspointError) -> [Double] {
    let (ranks, rank) = (fabric.rankCount, fabric.rank)
    let peers = (0..<ranks).map { $0 != rank && isMeant($0) }
    let count = peers.count { $0 }
    // All ranks go through the same exchanges, also those that have nobody to send to.
    let most = exchangeBytes / max(1, ranks - 1)
    var (buffer, failure): (BufferPool.Buffer?, CrosspointError?) = (nil, nil)
    do throws(CrosspointError) {
      buffer = try pool.lease(bytes: (ranks + 1) * most)
    } catch {
      failure = error
    }
    defer { if let buffer { pool.release(buffer) } }
    try agreement.settle(failure, operation: operation)
    let base = buffer!.base
    _ = base.initializeMemory(as: UInt8.self, repeating: 0, count: (ranks + 1) * most)
    func best(of runs: Int, bytes: Int) throws(CrosspointError) -> Double {
      let send = peers.map { UnsafeRawBufferPointer(start: base + ranks * most, count: $0 ? bytes : 0) }
      let receive = peers.enumerated().map { peer, isMeant in
        UnsafeMutableRawBufferPointer(start: base + peer * most, count: isMeant ? bytes : 0)
      }
      var least = Double.infinity
      for _ in 0..<runs {
        try fabric.barrier(operation: operation)
        var watch = Stopwatch()
        try fabric.exchange(send: send, receive: receive, operation: operation)
        least = min(least, watch.lap())
      }
      return least
    }
    let short = try best(of: 20, bytes: shortBytes)
    let long = try best(of: 5, bytes: most)
    guard count > 0 else { return [0, 0, 0] }
    return [Double(count), short, max(0, long - short) / Double(count * most)]
  }
}
