import CrosspointCore

/// What both ends of a transfer remember of a layer's rows, so that it need not be sent: the mean row of each label (its
/// anchor) and the axes along which rows differ from their anchors. The same bits on every rank.
///
/// A row travels as its coordinates `(x − anchor) Q W` and comes back as `y W⁻¹ Qᵀ + anchor`. Rows without a label, or with one
/// that is not known, have the mean of all rows for an anchor.
package struct RowMemory: Sendable {
  /// Labels that rows may have; −1 stands for none.
  package static let labelRange: ClosedRange<Int32> = -1...1 << 24

  /// Which label is none of ``labelRange``; `nil`: all are.
  /// - Parameter row: what a row is called.
  package static func problem(labels: [Int32], of row: String) -> String? {
    guard let index = labels.firstIndex(where: { !labelRange.contains($0) }) else { return nil }
    let (least, most) = (labelRange.lowerBound, labelRange.upperBound)
    return "\(row) \(index) has label \(labels[index]); \(least) (none) to \(most) allowed"
  }

  /// Labels that may have an anchor; their numbers are coded in 16 bits at most.
  static let mostAnchors = 0xFFFF

  /// Floats per row.
  package let hidden: Int
  /// All of it, as checkpoints keep it. Ranks never send it: each makes the same of the sums that they add up.
  package let bytes: [UInt8]
  /// A checksum of ``bytes``.
  package let fingerprint: UInt64
  /// What keeping it the same on every rank takes of each step, of a rank that sends rows.
  package var bytesPerStep = 0
  /// Whether frames say the labels of their rows; where they do not, both ends know them.
  package var sendsLabels = true
  /// Labels that have an anchor, most frequent first.
  let labels: [Int32]
  private let numbers: [Int32: Int32]
  /// `[(labels + 1) × hidden]`, the mean of all rows last.
  private let anchors: [Float]
  let axes: Reflections?
  /// `[hidden]`: W, how much each coordinate matters, and its inverse; empty where all matter alike.
  private let weights: [Float]
  private let inverseWeights: [Float]

  init(
    hidden: Int, labels: [Int32], anchors: [Float], axes: Reflections?, weights: [Float] = [], bytes: [UInt8] = [],
    fingerprint: UInt64 = 0
  ) {
    precondition(anchors.count == (labels.count + 1) * hidden)
    (self.hidden, self.labels, self.anchors, self.axes) = (hidden, labels, anchors, axes)
    (self.weights, inverseWeights) = (weights, weights.map { 1 / $0 })
    (self.bytes, self.fingerprint) = (bytes, fingerprint)
    numbers = Dictionary(uniqueKeysWithValues: zip(labels, 0...))
  }

  /// The number under which a label's anchor is known; the last is that of the mean of all rows.
  func number(of label: Int32) -> Int32 { numbers[label] ?? Int32(labels.count) }

  /// The label of an anchor, −1 for the mean of all rows.
  func label(of number: Int32) -> Int32 { number < labels.count ? labels[Int(number)] : -1 }

  /// What the other end takes a row's label for: −1 unless it has an anchor.
  package func known(_ label: Int32) -> Int32 { numbers[label] == nil ? -1 : label }

  /// `[hidden]`: the anchor of a label that has one.
  func anchor(of label: Int32) -> [Float]? {
    numbers[label].map { Array(anchors[Int($0) * hidden..<(Int($0) + 1) * hidden]) }
  }

  /// Turns a run of rows into coordinates, in place.
  /// - Parameter numbers: of each row's anchor.
  func enter(
    _ rows: UnsafeMutablePointer<Float>, _ numbers: UnsafePointer<Int32>, _ count: Int, _ codec: RowCodec
  ) {
    add(-1, to: rows, numbers, count, codec)
    axes?.apply(rows, count, codec.kernels)
    weigh(rows, weights, count, codec)
  }

  /// Turns coordinates into rows again.
  func leave(_ rows: UnsafeMutablePointer<Float>, _ numbers: UnsafePointer<Int32>, _ count: Int, _ codec: RowCodec) {
    weigh(rows, inverseWeights, count, codec)
    axes?.undo(rows, count, codec.kernels)
    add(1, to: rows, numbers, count, codec)
  }

  private func weigh(_ rows: UnsafeMutablePointer<Float>, _ weights: [Float], _ count: Int, _ codec: RowCodec) {
    guard !weights.isEmpty else { return }
    for row in 0..<count { codec.kernels.multiply(rows + row * hidden, rows + row * hidden, weights, hidden) }
  }

  private func add(
    _ sign: Float, to rows: UnsafeMutablePointer<Float>, _ numbers: UnsafePointer<Int32>, _ count: Int,
    _ codec: RowCodec
  ) {
    anchors.withUnsafeBufferPointer { anchors in
      for row in 0..<count {
        codec.kernels.axpy(rows + row * hidden, sign, anchors.baseAddress! + Int(numbers[row]) * hidden, hidden)
      }
    }
  }
}

extension RowMemory? {
  /// The memory that a frame says its rows are relative to.
  func matching(_ fingerprint: UInt64) throws(CrosspointError) -> RowMemory {
    guard let memory = self, memory.fingerprint == fingerprint else {
      throw CrosspointError(
        .ranksDisagree, operation: "decode", argument: "memory",
        "rows are relative to the memory \(String(fingerprint, radix: 16)), here there is "
          + (map { String($0.fingerprint, radix: 16) } ?? "none") + ": every rank must learn from the same")
    }
    return memory
  }
}
