import CrosspointCore

/// A memory as bytes (docs/wire-format.md): its labels, then frames of the mean of all rows, of the axes, of the
/// weights and of the anchors. These are coded like other rows, so that no rank has anything but what all can decode.
extension RowMemory {
  /// How axes are coded: an error of a few percent turns them a little.
  private static let axesFormat = WireFormat("rotated:6")!
  /// How anchors are coded: their error is a small part of what is left of rows that have them.
  static let anchorFormat = WireFormat(entropyRate: 3)

  /// - Parameters:
  ///   - mean: `[hidden]`: the mean of all rows.
  ///   - labels: at most ``mostAnchors``, each once.
  ///   - anchors: `[labels × hidden]`: by how much their rows' means differ from that of all.
  ///   - axes: `[axes × hidden]`, the most important first.
  ///   - weights: `[hidden]`, positive: how much each coordinate matters.
  init(
    mean: [Float], labels: [Int32], anchors: [Float], axes: [Float], weights: [Float], codec: RowCodec
  ) throws(CrosspointError) {
    var bytes: [UInt8] = []
    for number in [labels.count, axes.count / codec.hidden] + labels.map({ Int($0) }) {
      withUnsafeBytes(of: UInt32(number).littleEndian) { bytes += $0 }
    }
    bytes += try Self.frame(of: mean, .fp32, nil, codec)
    let axesFrame = try Self.frame(of: axes, Self.axesFormat, nil, codec)
    bytes += axesFrame
    bytes += try Self.frame(of: weights, .bf16, nil, codec)
    // The receiver's axes.
    let received = try axesFrame.withUnsafeBufferPointer { frame throws(CrosspointError) in
      try Self.rowsOfFrame(axes.count / codec.hidden, in: UnsafeRawBufferPointer(frame), nil, codec).rows
    }
    bytes += try Self.frame(of: anchors, Self.anchorFormat, Self.coordinates(received, codec), codec)
    try self.init(reading: bytes, codec: codec)
  }

  /// Reads what ``bytes`` holds.
  /// - Throws: `corruptFrame` or `truncatedFrame` for bytes that are no memory of rows of this size.
  package init(reading bytes: [UInt8], codec: RowCodec) throws(CrosspointError) {
    self = try bytes.withUnsafeBufferPointer { all throws(CrosspointError) in
      try Self.read(UnsafeRawBufferPointer(all), bytes, codec)
    }
  }

  private static func read(
    _ all: UnsafeRawBufferPointer, _ bytes: [UInt8], _ codec: RowCodec
  ) throws(CrosspointError) -> RowMemory {
    guard all.count >= 8, let base = all.baseAddress else { throw .truncated("\(all.count) bytes of a memory") }
    func number(_ index: Int) -> Int { Int(base.get(at: 4 * index) as UInt32) }
    let (labelCount, axisCount) = (number(0), number(1))
    guard labelCount <= min(mostAnchors, all.count / 4 - 2), axisCount <= min(codec.hidden, Reflections.most) else {
      throw .corrupt("memory", "\(labelCount) labels and \(axisCount) axes in \(all.count) bytes")
    }
    let labels = (0..<labelCount).map { Int32(truncatingIfNeeded: number(2 + $0)) }
    guard Set(labels).count == labelCount, labels.allSatisfy({ $0 >= 0 }) else {
      throw .corrupt("memory", "\(labelCount) labels that are not different numbers of those that there may be")
    }
    var rest = all[(8 + 4 * labelCount)...]
    func take(_ rows: Int, _ memory: RowMemory?) throws(CrosspointError) -> [Float] {
      let (values, size) = try rowsOfFrame(rows, in: UnsafeRawBufferPointer(rebasing: rest), memory, codec)
      rest = rest.dropFirst(size)
      return values
    }
    let mean = try take(1, nil)
    let coordinates = coordinates(try take(axisCount, nil), codec)
    let weights = try take(1, nil)
    var anchors = try take(labelCount, coordinates)
    guard rest.isEmpty else { throw .corrupt("memory", "\(rest.count) bytes behind it") }
    for index in anchors.indices { anchors[index] += mean[index % codec.hidden] }
    anchors += mean
    guard anchors.allSatisfy(\.isFinite), weights.allSatisfy({ (0x1p-20...0x1p20).contains($0) }) else {
      throw .corrupt("memory", "anchors or weights that are not finite")
    }
    return RowMemory(
      hidden: codec.hidden, labels: labels, anchors: anchors, axes: coordinates.axes, weights: weights,
      bytes: bytes,
      fingerprint: codec.checksum(base, all.count))
  }

  /// A memory of axes alone, in whose coordinates anchors are coded.
  private static func coordinates(_ axes: [Float], _ codec: RowCodec) -> RowMemory {
    RowMemory(
      hidden: codec.hidden, labels: [], anchors: Array(repeating: 0, count: codec.hidden),
      axes: axes.isEmpty ? nil : Reflections(axes: axes, hidden: codec.hidden))
  }

  private static func frame(
    of rows: [Float], _ format: WireFormat, _ memory: RowMemory?, _ codec: RowCodec
  ) throws(CrosspointError) -> [UInt8] {
    let count = rows.count / codec.hidden
    let most = codec.maximumFrameBytes(format, rows: count, groups: 1)
    return try rows.withUnsafeBufferPointer { rows throws(CrosspointError) in
      let source = RowSource(base: rows.baseAddress ?? UnsafePointer(codec.scratchRow(0)), rows: count)
      var frame = [UInt8](repeating: 0, count: most)
      let size = try frame.withUnsafeMutableBufferPointer { frame throws(CrosspointError) in
        try codec.encode([source], as: format, memory: memory, into: UnsafeMutableRawBufferPointer(frame))
      }
      frame.removeLast(most - size)
      return frame
    }
  }

  /// The rows of the frame that the bytes begin with, and its size.
  private static func rowsOfFrame(
    _ rows: Int, in bytes: UnsafeRawBufferPointer, _ memory: RowMemory?, _ codec: RowCodec
  ) throws(CrosspointError) -> (rows: [Float], size: Int) {
    let size = try codec.frameBytes(bytes)
    let (count, overflow) = rows.multipliedReportingOverflow(by: codec.hidden)
    guard !overflow, size <= bytes.count else { throw .truncated("\(bytes.count) bytes of a frame of \(size)") }
    try requireMemory(bytes: 4 * count, operation: "decode", argument: "memory")
    var values = [Float](repeating: 0, count: max(1, count))
    try values.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try codec.decode(
        UnsafeRawBufferPointer(rebasing: bytes[..<size]), memory: memory,
        into: [RowTarget(base: values.baseAddress!, rows: rows)])
    }
    values.removeLast(values.count - count)
    return (values, size)
  }
}
