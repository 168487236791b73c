import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointFabric

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Keeps a budget: samples what is about to be sent, tells the other ranks, and chooses from what all have told.
///
/// What a rank tells goes with the announcements of the transfer, so every rank adds up the same numbers in the same order,
/// and a choice holds from the next transfer on. Only a transfer without a choice (the first of its kind, or the first
/// after the clusters have changed) needs an exchange of its own, before its rows are coded.
final class BudgetPolicy: TransferPolicy {
  typealias Kind = TransferKind

  /// Training steps (of four transfers) from one sample to the next.
  static let sampleInterval = 8
  /// What goes with a sample's announcements: what bf16 would have taken, and the measurement.
  static let noteWords = 1 + PolicyMeasurement.words(clusterings: PolicyMeasurement.clusterings)

  var state = PolicyState()
  var adapts = true {
    didSet {
      if oldValue, !adapts { kept = state }
      if !oldValue, adapts { state = kept }
    }
  }

  private let budget: Budget
  private let fabric: any Fabric
  private let hidden: Int
  private let transfers: Set<TransferKind>
  /// Bytes of an announcement, without what a sample adds.
  private let announcementBytes: Int
  private let sampler: PolicySampler
  /// What this rank tells, and after it what every rank tells in an exchange of its own.
  private let note: UnsafeMutableBufferPointer<Float>
  private var kept = PolicyState()
  /// Whether the transfer under way is sampled, and tells what was measured.
  private var isSampled = false
  /// By kind: whether the rows of its last sample could not be measured.
  private var isUnmeasured = [Bool](repeating: false, count: Kind.allCases.count)
  // Of this rank, and of all.
  private var mine = PolicyMeasurement()
  private var sum = PolicyMeasurement()

  init(_ budget: Budget, _ context: PolicyContext) {
    self.budget = budget
    fabric = context.fabric
    hidden = context.codec.hidden
    transfers = context.transfers
    announcementBytes = context.announcementBytes + 2 * 4
    sampler = PolicySampler(codec: context.codec, pool: context.pool)
    note = .allocate(capacity: (1 + context.fabric.rankCount) * Self.noteWords)
    note.initialize(repeating: 0)
  }

  deinit { note.deallocate() }

  func start(_ agreement: Agreement) throws(CrosspointError) {
    guard case .fastest = budget.goal else { return }
    let operation: StaticString = "ExpertExchange.init"
    var tuning = budget.tuning
    if tuning == nil { tuning = try Tuning(measuring: fabric, hidden: hidden, operation: operation) }
    var failure: CrosspointError?
    do throws(CrosspointError) { state.speed = try PolicySpeed(tuning!, on: fabric) } catch { failure = error }
    try agreement.settle(failure, operation: operation)
  }

  func prepare(
    _ transfer: PendingTransfer, failure: inout CrosspointError?
  ) throws(CrosspointError) -> TransferPlan? {
    let kind = transfer.kind
    isSampled = adapts && state.clock / Kind.allCases.count % Self.sampleInterval == 0
    if adapts { state.clock += 1 }
    guard transfers.contains(kind) else { return nil }
    var bytesSent = 0
    if fabric.rankCount > 1, isSampled || state[kind].choice == nil {
      measure(transfer, &failure)
      if state[kind].choice == nil { bytesSent = try chooseNow(kind) }
    }
    return TransferPlan(
      choice: choice(kind), note: tell(kind, pairs: transfer.pairs), measuresFidelity: measuresFidelity(kind),
      bytesSent: bytesSent)
  }

  /// The clusters that were made in a dispatch replace what the sample promised of that rate.
  func note(clusters: Int, residualEnergy: Double) {
    guard isSampled, let rate = choice(.dispatch).clusterRate, let index = PolicyMenu.rates.firstIndex(of: rate)
    else { return }
    mine.kept[index + 1] = Double(clusters)
    mine.residuals[index + 1] = residualEnergy * mine.energy
    mine.write(to: note.baseAddress! + 1, clusterings: clusterings(.dispatch))
  }

  func conclude(
    _ kind: Kind, _ outcome: TransferOutcome, told: (_ rank: Int) -> UnsafeMutableBufferPointer<Float>
  ) -> PolicyChoice {
    let measuresFidelity = measuresFidelity(kind)
    var plain = 0.0
    sum.clear()
    for rank in 0..<fabric.rankCount {
      let note = told(rank)
      plain += Double(note[0])
      if isSampled { sum.add(note.baseAddress! + 1, clusterings: clusterings(kind)) }
    }
    state[kind].charge(bytes: outcome.bytes, plain: plain)
    if measuresFidelity { state[kind].prove(error: outcome.fidelity.relativeError) }
    if isSampled { decide(kind, samples: 1) }
    return choice(kind)
  }

  /// What was chosen last, where that can be used as it is.
  private func choice(_ kind: Kind) -> PolicyChoice {
    state[kind].choice ?? .lossless(isUnmeasured[kind.rawValue] ? .unmeasured : .nothingTravels, bytes: 0)
  }

  /// Tries the menu on a sample of this rank's rows.
  private func measure(_ transfer: PendingTransfer, _ failure: inout CrosspointError?) {
    mine.clear()
    sampler.speed = state.speed
    guard failure == nil else { return }
    do throws(CrosspointError) {
      try sampler.measure(transfer, except: fabric.rank, number: state.clock, into: &mine)
      mine.pairs = Double(transfer.pairs)
      mine.metadataBytes = Double(transfer.metadataBytes)
      mine.standingBytes = Double(transfer.standingBytes)
    } catch {
      mine.clear()
      failure = error
    }
  }

  /// At every sample, and once for every choice.
  private func measuresFidelity(_ kind: Kind) -> Bool {
    guard fabric.rankCount > 1, adapts, let choice = state[kind].choice else { return false }
    return (isSampled || !state[kind].isProven) && !choice.keepsEveryBit
  }

  /// What goes with the announcements.
  private func tell(_ kind: Kind, pairs: Int) -> UnsafeMutableBufferPointer<Float> {
    guard fabric.rankCount > 1, adapts else { return .init(start: nil, count: 0) }
    note[0] = Float(2 * hidden * pairs)
    if isSampled { mine.write(to: note.baseAddress! + 1, clusterings: clusterings(kind)) }
    return UnsafeMutableBufferPointer(rebasing: note[..<(1 + (isSampled ? recordWords(kind) : 0))])
  }

  /// Everybody tells everybody, before the rows are coded; returns the bytes that this rank has sent.
  private func chooseNow(_ kind: Kind) throws(CrosspointError) -> Int {
    let words = recordWords(kind)
    let record = UnsafeMutableBufferPointer(rebasing: note[..<words])
    let all = UnsafeMutableBufferPointer(rebasing: note[words..<(1 + fabric.rankCount) * words])
    mine.write(to: record.baseAddress!, clusterings: clusterings(kind))
    try fabric.allgather(
      UnsafeRawBufferPointer(record), into: UnsafeMutableRawBufferPointer(all), operation: kind.operation)
    sum.clear()
    for rank in 0..<fabric.rankCount { sum.add(all.baseAddress! + rank * words, clusterings: clusterings(kind)) }
    decide(kind, samples: 2)  // it must last until the next
    isSampled = false  // this was it
    return (fabric.rankCount - 1) * words * 4
  }

  /// Clusters are decided about at dispatch alone.
  private func clusterings(_ kind: Kind) -> Int { kind == .dispatch ? PolicyMeasurement.clusterings : 1 }

  private func recordWords(_ kind: Kind) -> Int { PolicyMeasurement.words(clusterings: clusterings(kind)) }

  /// - Parameter samples: those whose bytes the transfers until the next sample have to bear.
  private func decide(_ kind: Kind, samples: Int) {
    let links = fabric.rankCount * (fabric.rankCount - 1)
    // Announcements travel in two copies.
    let bytes = Double(announcementBytes) + Double(2 * 4 * samples * recordWords(kind)) / Double(Self.sampleInterval)
    let judge = PolicyJudge(
      goal: budget.goal, hidden: hidden, announcementBytes: bytes * Double(links), speed: state.speed)
    let rate = state[kind].choice?.clusterRate
    isUnmeasured[kind.rawValue] = sum.rows > 0 && !sum.isUsable
    state[kind].update(sum, judge)
    // The other transfers send as many rows: they choose anew.
    guard kind == .dispatch, rate != state[kind].choice?.clusterRate else { return }
    for other in Kind.allCases where other != .dispatch { state[other].forget() }
  }
}

/// What a checkpoint keeps.
extension BudgetPolicy {
  var savedState: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    guard let data = try? encoder.encode(adapts ? state : kept) else {
      preconditionFailure("every number of a state is finite")
    }
    return String(decoding: data, as: UTF8.self)
  }

  func restore(_ text: String) -> String? {
    guard let state = try? JSONDecoder().decode(PolicyState.self, from: Data(text.utf8)) else {
      return "it cannot be read"
    }
    if let defect = state.defect { return defect }
    (self.state, kept) = (state, state)
    return nil
  }
}
