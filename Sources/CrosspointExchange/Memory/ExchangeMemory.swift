import CrosspointCompression
import CrosspointCore

/// What an exchange remembers of the rows of each transfer, the same on every rank.
package struct ExchangeMemory {
  /// Steps from one learning to the next; 0: nothing is learned.
  let interval: UInt64
  private var memories = [RowMemory?](repeating: nil, count: TransferKind.allCases.count)
  /// The step at which each was learned last.
  private var steps = [UInt64?](repeating: nil, count: TransferKind.allCases.count)

  init(interval: Int) { self.interval = UInt64(max(0, interval)) }

  package subscript(kind: TransferKind) -> RowMemory? {
    get { memories[kind.rawValue] }
    set {
      memories[kind.rawValue] = newValue
      // Who gets rows back knows which they were.
      memories[kind.rawValue]?.sendsLabels = kind == .dispatch
    }
  }

  /// For how many steps what a transfer learns at this one will do; `nil`: none is due, or one has. At first all is new: then
  /// one is due at the steps 0, 1, 2, 4, 8 and so on.
  mutating func take(_ kind: TransferKind, step: UInt64) -> Int? {
    guard interval > 0, steps[kind.rawValue] != step else { return nil }
    steps[kind.rawValue] = step
    if step.isMultiple(of: interval) { return step == 0 ? 1 : Int(interval) }
    guard step < interval, step.nonzeroBitCount == 1 else { return nil }
    return Int(min(step, interval - step))
  }

  /// One of the memories as a checkpoint keeps it.
  package struct Saved: Codable, Equatable, Sendable {
    /// ``RowMemory/bytes``, two hexadecimal digits each.
    let bytes: String
    let bytesPerStep: Int
  }

  /// `nil` where nothing is learned.
  var saved: [Saved?]? {
    guard interval > 0 else { return nil }
    return memories.map { memory in memory.map { Saved(bytes: Self.text($0.bytes), bytesPerStep: $0.bytesPerStep) } }
  }

  /// Goes on from what was saved.
  /// - Throws: what is wrong with it; nothing has changed then.
  mutating func restore(_ saved: [Saved?]?, codec: RowCodec) throws(CrosspointError) {
    guard let saved else { return }
    func refuse(_ message: String) -> CrosspointError {
      CrosspointError(.corruptFrame, operation: "restore", argument: "memory", message)
    }
    guard saved.count == memories.count else { throw refuse("it is of \(saved.count) transfers") }
    var restored = self
    for kind in TransferKind.allCases {
      guard let one = saved[kind.rawValue] else {
        restored[kind] = nil
        continue
      }
      guard let bytes = Self.bytes(one.bytes), one.bytesPerStep >= 0 else { throw refuse("it cannot be read") }
      var memory = try RowMemory(reading: bytes, codec: codec)
      memory.bytesPerStep = one.bytesPerStep
      restored[kind] = memory
    }
    self = restored
  }

  private static let digits = Array("0123456789abcdef".utf8)

  private static func text(_ bytes: [UInt8]) -> String {
    String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }

  private static func bytes(_ text: String) -> [UInt8]? {
    let values = text.utf8.map { digits.firstIndex(of: $0) ?? 16 }
    guard values.count.isMultiple(of: 2), !values.contains(16) else { return nil }
    return stride(from: 0, to: values.count, by: 2).map { UInt8(values[$0] << 4 | values[$0 + 1]) }
  }

  /// What a row of a label is known by on its way home: where it has been decides what comes back. −1: by nothing.
  static func label(_ label: Int32, from destination: Int, of destinations: Int) -> Int32 {
    label < 0 ? -1 : Int32(exactly: Int(label) * destinations + destination) ?? -1
  }
}
