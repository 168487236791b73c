import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTokens

/// Keeps a budget: looks at what is about to be sent, tells the other ranks, and chooses from what all have told.
///
/// What a rank tells goes with the announcements of the transfer, so every rank adds up the same numbers in the same order,
/// and a choice holds from the next transfer on. Only a transfer without a choice (the first of its kind, or the first
/// after the clusters have changed) needs an exchange of its own, before its rows are coded.
final class ExchangePolicy {
  typealias Kind = TransferKind

  /// Training steps (of four transfers) from one look to the next.
  static let lookEvery = 8
  /// Where a note says what bf16 would have taken, behind what the transfer fills in.
  private static let plainWord = Transfer.NoteWord.allCases.count
  /// What goes with every announcement.
  private static let accountWords = plainWord + 1
  /// What goes with the announcements of a look.
  static let noteWords = accountWords + PolicyMeasurement.words(ways: PolicyMeasurement.ways)

  let options: ExchangeOptions.Policy
  var state = PolicyState()
  /// Whether it looks and may change its choice; what it has to choose while it does not is forgotten afterwards.
  var adapts = true {
    didSet {
      if oldValue, !adapts { kept = state }
      if !oldValue, adapts { state = kept }
    }
  }

  let fabric: any Fabric
  let pool: BufferPool
  private let hidden: Int
  /// Words of an announcement, without what a look adds.
  private let announcementWords: Int
  let sampler: PolicySampler
  /// What this rank tells, and after it what every rank tells in an exchange of its own.
  private let note: UnsafeMutableBufferPointer<Float>
  private var kept = PolicyState()
  private var isLook = false
  private var extraBytes = 0
  /// By kind: whether the rows of its last look could not be measured.
  private var isUnmeasured = [Bool](repeating: false, count: Kind.allCases.count)
  // Of this rank, and of all.
  private var mine = PolicyMeasurement()
  private var sum = PolicyMeasurement()

  init(_ options: ExchangeOptions.Policy, transfer: Transfer) throws(CrosspointError) {
    try options.validate()
    self.options = options
    fabric = transfer.fabric
    pool = transfer.pool
    hidden = transfer.codec.hidden
    let ranks = fabric.rankCount
    announcementWords = transfer.announcementBaseWords + Self.accountWords
    sampler = PolicySampler(codec: transfer.codec, pool: transfer.pool)
    note = .allocate(capacity: (1 + ranks) * Self.noteWords)
    note.initialize(repeating: 0)
  }

  deinit { note.deallocate() }

  /// Begins a transfer. Every transfer must, also those that it does not govern: they all count.
  func begin(_ kind: Kind) {
    isLook = false
    guard adapts else { return }
    isLook = state.clock / Kind.allCases.count % Self.lookEvery == 0
    state.clock += 1
  }

  /// What chose last, where that can be used as it is.
  func choice(_ kind: Kind) -> PolicyChoice {
    state[kind].choice ?? .lossless(isUnmeasured[kind.rawValue] ? .unmeasured : .nothingTravels, bytes: 0)
  }

  /// Looks at the rows of a transfer and, if there is no choice yet, chooses. Collective then.
  ///
  /// - Parameters:
  ///   - pairs: rows that this rank's routing sends to others.
  ///   - beside: bytes that will travel beside them.
  ///   - clusterer: tries cluster rates, if they are to be decided about.
  ///   - rounding: how the rows will be rounded.
  ///   - failure: what has gone wrong on this rank before; it then reports no rows.
  ///   - sources: appends the groups of rows for a peer.
  func look(
    _ kind: Kind, pairs: Int, beside: Int, clusterer: TokenClusterer?, rounding: RowRounding,
    failure: inout CrosspointError?, sources: (_ peer: Int, _ groups: inout [RowSource]) -> Void
  ) throws(CrosspointError) {
    guard fabric.rankCount > 1, options.governs(kind) else { return }
    let isFirst = state[kind].choice == nil
    guard isLook || isFirst else { return }
    mine.clear()
    if failure == nil {
      do throws(CrosspointError) {
        sampler.begin()
        for peer in 0..<fabric.rankCount where peer != fabric.rank { sampler.gather(peer, sources) }
        try sampler.measure(state.clock, rounding, clusterer, into: &mine)
        mine.pairs = Double(pairs)
        mine.beside = Double(beside)
      } catch {
        mine.clear()
        failure = error
      }
    }
    if isFirst { try chooseNow(kind) }
  }

  /// The clusters that were made in a dispatch replace what the look expected of that rate.
  func note(clusters: Int, residualEnergy: Double) {
    guard let rate = choice(.dispatch).clusterRate, let index = PolicyMenu.rates.firstIndex(of: rate) else { return }
    mine.kept[index + 1] = Double(clusters)
    mine.residuals[index + 1] = residualEnergy * mine.energy
  }

  /// Whether the frames of this transfer are to be decoded, to see what arrives: at every look, and once for every choice.
  func judges(_ kind: Kind) -> Bool {
    guard fabric.rankCount > 1, adapts, options.governs(kind), let choice = state[kind].choice else { return false }
    return (isLook || !state[kind].isProven) && !choice.keepsEveryBit
  }

  /// What this rank tells with its announcements; the first numbers are the transfer's to fill in.
  func outgoing(_ kind: Kind, pairs: Int) -> UnsafeMutableBufferPointer<Float> {
    guard fabric.rankCount > 1, adapts, options.governs(kind) else { return .init(start: nil, count: 0) }
    note[Self.plainWord] = Float(2 * hidden * pairs)
    let record = isLook ? recordWords(kind) : 0
    if isLook { mine.write(to: note.baseAddress! + Self.accountWords, ways: ways(kind)) }
    return UnsafeMutableBufferPointer(rebasing: note[..<(Self.accountWords + record)])
  }

  /// Ends a transfer with what every rank has told.
  func conclude(_ kind: Kind, note: (_ rank: Int) -> UnsafeMutableBufferPointer<Float>) {
    guard fabric.rankCount > 1, adapts, options.governs(kind) else { return }
    var (bytes, plain) = (0.0, 0.0)
    var fidelity = Transfer.Fidelity()
    let judged = judges(kind)
    sum.clear()
    for rank in 0..<fabric.rankCount {
      let note = note(rank)
      bytes += Double(note[Transfer.NoteWord.bytes.rawValue])
      plain += Double(note[Self.plainWord])
      fidelity = fidelity + Transfer.Fidelity(note: note)
      if isLook { sum.add(note.baseAddress! + Self.accountWords, ways: ways(kind)) }
    }
    state[kind].charge(bytes: bytes, plain: plain)
    if judged { state[kind].prove(error: fidelity.relativeError) }
    if isLook { decide(kind, looks: 1) }
  }

  /// Everybody tells everybody, before the rows are coded.
  private func chooseNow(_ kind: Kind) throws(CrosspointError) {
    let words = recordWords(kind)
    let record = UnsafeMutableBufferPointer(rebasing: note[..<words])
    let all = UnsafeMutableBufferPointer(rebasing: note[words..<(1 + fabric.rankCount) * words])
    mine.write(to: record.baseAddress!, ways: ways(kind))
    try fabric.allgather(
      UnsafeRawBufferPointer(record), into: UnsafeMutableRawBufferPointer(all), operation: kind.operation)
    sum.clear()
    for rank in 0..<fabric.rankCount { sum.add(all.baseAddress! + rank * words, ways: ways(kind)) }
    decide(kind, looks: 2)  // it must last until the next
    extraBytes = (fabric.rankCount - 1) * words * 4
    isLook = false  // this was it
  }

  /// Bytes that this rank has sent in exchanges of their own since the last call.
  func takeExtraBytes() -> Int {
    defer { extraBytes = 0 }
    return extraBytes
  }

  /// Clusters are decided about at dispatch alone.
  private func ways(_ kind: Kind) -> Int { kind == .dispatch ? PolicyMeasurement.ways : 1 }

  private func recordWords(_ kind: Kind) -> Int { PolicyMeasurement.words(ways: ways(kind)) }

  /// - Parameter looks: those whose bytes the transfers until the next look have to bear.
  private func decide(_ kind: Kind, looks: Int) {
    let links = fabric.rankCount * (fabric.rankCount - 1)
    let words = Double(announcementWords) + Double(looks * recordWords(kind)) / Double(Self.lookEvery)
    let judge = PolicyJudge(
      goal: options.goal, hidden: hidden, announcementBytes: 4 * words * Double(links), speed: state.speed)
    let rate = state[kind].choice?.clusterRate
    isUnmeasured[kind.rawValue] = sum.rows > 0 && !sum.isUsable
    state[kind].look(sum, judge)
    // The other transfers send as many rows: they choose anew.
    guard kind == .dispatch, rate != state[kind].choice?.clusterRate else { return }
    for other in Kind.allCases where other != .dispatch { state[other].forget() }
  }
}
