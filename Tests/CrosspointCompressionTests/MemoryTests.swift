import CCrosspointKernels
import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

/// Rows of a label are alike, and differ along few axes.
struct LabelledRows {
  let hidden: Int
  let values: [Float]
  let labels: [Int32]

  init(_ rows: Int, hidden: Int, seed: UInt64, labelCount: Int = 12, axes: Int = 3) {
    self.hidden = hidden
    // The same world for every seed of rows.
    let anchors = normalFloats(labelCount * hidden, seed: 7)
    let directions = normalFloats(axes * hidden, seed: 8)
    let (amounts, noise) = (normalFloats(rows * axes, seed: seed), normalFloats(rows * hidden, seed: seed + 1))
    var generator = SplitMix64(seed: seed + 2)
    labels = (0..<rows).map { _ in Int32(min(generator.next() % 16, UInt64(labelCount - 1))) }
    values = (0..<rows * hidden).map { [labels] index in
      let (row, column) = (index / hidden, index % hidden)
      let common = (0..<axes).reduce(Float(0)) { $0 + amounts[row * axes + $1] * directions[$1 * hidden + column] }
      return 5 + 2 * anchors[Int(labels[row]) * hidden + column] + common + 0.1 * noise[index]
    }
  }

  func learned(labelled: Bool = true) throws -> RowMemory {
    let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
    return try RowMemory(
      learnedFrom: TokenBatch(values, hidden: hidden), labels: labelled ? labels : nil, codec: codec)
  }

  func error(_ memory: RowMemory?, labelled: Bool = true, bits: Double = 1) throws -> Double {
    let groups = [labels.count / 3, 0, labels.count - labels.count / 3]
    let frame = try encodeFrame(
      values, hidden: hidden, groups: groups, as: .entropy(bits: bits), labels: labelled ? labels : nil, memory: memory)
    #expect(8 * frame.count <= Int(1.15 * bits * Double(values.count)) + 8 * FrameHeader.bytes(groups: 3))
    return relativeError(try decodeFrame(frame, hidden: hidden, groups: groups, memory: memory), values)
  }
}

@Suite struct MemoryTests {
  static let before = LabelledRows(900, hidden: 40, seed: 100)
  static let now = LabelledRows(400, hidden: 40, seed: 200)

  @Test func whatBothEndsRememberNeedNotBeSent() throws {
    let plain = try Self.now.error(nil)
    let axes = try Self.now.error(Self.before.learned(labelled: false), labelled: false)
    let both = try Self.now.error(Self.before.learned())
    #expect(axes < 0.8 * plain && both < 0.7 * axes, "\(plain), \(axes), \(both)")
  }

  /// Labels that were never seen, none at all, or too many of them: another anchor, the same rows.
  @Test func everyLabelComesBack() throws {
    let memory = try Self.before.learned()
    let cases: [[Int32]?] = [Array(repeating: -1, count: 400), (0..<400).map { $0 * 40_000 }, nil]
    for labels in cases {
      let frame = try encodeFrame(
        Self.now.values, hidden: 40, groups: [400], as: .entropy(bits: 6), labels: labels, memory: memory)
      let y = try decodeFrame(frame, hidden: 40, groups: [400], memory: memory)
      #expect(relativeError(y, Self.now.values) < 0.05)
    }
  }

  @Test func numbersOfLabelsAreIntegersOfEitherSign() {
    for number in Int32(0)...70_000 { #expect(EntropyBody.number(EntropyBody.integer(number)) == number) }
    #expect([0, 1, 2, 3].map(EntropyBody.integer) == [0, -1, 1, -2])
  }

  @Test func hostileRowsComeBackAsWithoutAMemory() throws {
    let memory = try Self.before.learned()
    var x = Self.now.values
    for column in 0..<40 {
      x[40 + column] = 0
      x[80 + column] *= 1e20
      x[120 + column] = column == 7 ? .nan : 1
      x[160 + column] = column == 7 ? 0x1p114 : 0
      x[200 + column] = column == 7 ? .infinity : 1
    }
    let frame = try encodeFrame(
      x, hidden: 40, groups: [400], as: .entropy(bits: 6), labels: Self.now.labels, memory: memory)
    let y = try decodeFrame(frame, hidden: 40, groups: [400], memory: memory)
    for row in 0..<400 {
      let range = row * 40..<(row + 1) * 40
      switch row {
      case 3, 5: #expect(y[range].allSatisfy { $0.isNaN })
      case 1: #expect(y[range].allSatisfy { abs($0) < 2 })
      default: #expect(relativeError(y[range], x[range]) < 0.1, "\(row)")
      }
    }
  }

  @Test func anotherMemoryIsRefusedByName() throws {
    let memory = try Self.before.learned()
    let frame = try encodeFrame(
      Self.now.values, hidden: 40, groups: [400], as: .entropy(bits: 2), labels: Self.now.labels, memory: memory)
    for other in [nil, try LabelledRows(901, hidden: 40, seed: 100).learned()] {
      let error = #expect(throws: CrosspointError.self) {
        try decodeFrame(frame, hidden: 40, groups: [400], memory: other)
      }
      #expect(error?.code == .ranksDisagree && error?.argument == "memory")
    }
  }

  /// What checkpoints keep is all there is of it.
  @Test func aMemoryIsItsBytes() throws {
    let codec = try RowCodec(hidden: 40, seed: 7, pool: BufferPool())
    let memory = try Self.before.learned()
    let again = try RowMemory(reading: memory.bytes, codec: codec)
    #expect(again.fingerprint == memory.fingerprint && again.labels == memory.labels)
    #expect(memory.bytesPerStep == (memory.bytes.count + 63) / 64)
    func frame(_ memory: RowMemory) throws -> [UInt8] {
      try encodeFrame(
        Self.now.values, hidden: 40, groups: [400], as: .entropy(bits: 2), labels: Self.now.labels, memory: memory)
    }
    #expect(try frame(memory) == frame(again))
    for length in 0..<memory.bytes.count {
      #expect(throws: CrosspointError.self) { try RowMemory(reading: Array(memory.bytes[..<length]), codec: codec) }
    }
    // Frames have checksums; a label may become another one, which its memory then has.
    let frames = 8 * (8 + 4 * memory.labels.count)
    for bit in stride(from: 0, to: 8 * memory.bytes.count, by: 5) {
      var damaged = memory.bytes
      damaged[bit / 8] ^= 1 << (bit % 8)
      let result = Result { try RowMemory(reading: damaged, codec: codec) }
      switch result {
      case .success(let other): #expect(bit < frames && other.labels != memory.labels, "bit \(bit)")
      case .failure(let error): #expect(error is CrosspointError, "bit \(bit)")
      }
    }
  }

  @Test func damageUnderAValidChecksumNeverCrashes() throws {
    let codec = try RowCodec(hidden: 40, seed: 7, pool: BufferPool())
    let memory = try Self.before.learned()
    let frame = try encodeFrame(
      Self.now.values, hidden: 40, groups: [400], as: .entropy(bits: 2), labels: Self.now.labels, memory: memory,
      codec: codec)
    let start = FrameHeader.bytes(groups: 1)
    var generator = SplitMix64(seed: 5)
    for round in 0..<600 {
      var changed = frame
      for _ in 0..<1 + round % 3 {
        changed[start + 8 + Int(generator.next() % UInt64(round % 2 == 0 ? 200 : frame.count - start - 8))] =
          UInt8(truncatingIfNeeded: generator.next())
      }
      reseal(&changed, groups: 1, codec)
      do {
        _ = try decodeFrame(changed, hidden: 40, groups: [400], memory: memory, codec: codec)
      } catch let error as CrosspointError {
        #expect(error.code == .corruptFrame)
      }
    }
  }

  @Test func rowsThatCannotBeLearnedFromAreRefused() throws {
    let codec = try RowCodec(hidden: 4, seed: 7, pool: BufferPool())
    for bad in [Float.nan, .infinity, 1e30] {
      let error = #expect(throws: CrosspointError.self) {
        try RowMemory(learnedFrom: TokenBatch([1, 2, 3, bad], hidden: 4), labels: nil, codec: codec)
      }
      #expect(error?.code == .nonFinite)
    }
    let lone = try RowMemory(learnedFrom: TokenBatch([1, 2, 3, 4], hidden: 4), labels: [9], codec: codec)
    #expect(lone.labels == [9])
  }

  /// Memory may be missing on one rank alone: the others would wait for it in the sums.
  @Test func whatMayFailOnOneRankIsAgreedOnBeforeSums() throws {
    let codec = try RowCodec(hidden: 4, seed: 7, pool: BufferPool())
    let error = #expect(throws: CrosspointError.self) {
      try RowMemory.learned(
        from: [], codec: codec,
        over: RankSums(
          together: { step throws(CrosspointError) in
            try step()
            throw CrosspointError(.outOfMemory, operation: "together", argument: "axes", "another rank has none")
          },
          counts: { _ throws(CrosspointError) in
            throw CrosspointError(.deadlineExceeded, operation: "counts", argument: "rows", "another rank has left")
          },
          values: { _ throws(CrosspointError) in }))
    }
    #expect(error?.code == .outOfMemory)
  }

  /// Whatever the axes, rows keep their lengths and come back; a row along an axis has one coordinate.
  @Test(arguments: [1, 2, 7, 16, 33, 64]) func reflectionsAreOrthogonal(hidden: Int) throws {
    let kernels = CrosspointTokens.kernels
    for count in Set([0, 1, hidden / 2, hidden]) {
      var axes = normalFloats(count * hidden, seed: UInt64(hidden))
      // Axes that depend on one another, or vanish, do no harm.
      if count > 3 { axes.replaceSubrange(hidden..<2 * hidden, with: axes[0..<hidden]) }
      if count > 4 { for index in 3 * hidden..<4 * hidden { axes[index] = 0 } }
      let map = Reflections(axes: axes, hidden: hidden)
      let x = normalFloats(5 * hidden, seed: 3)
      var y = x
      map.apply(&y, 5, kernels)
      for row in 0..<5 {
        let range = row * hidden..<(row + 1) * hidden
        let lengths = [x, y].map { rows in rows[range].reduce(Float(0)) { $0 + $1 * $1 }.squareRoot() }
        #expect(abs(lengths[0] - lengths[1]) < 1e-4 * lengths[0])
      }
      map.undo(&y, 5, kernels)
      #expect(relativeError(y, x) < 1e-5)
      guard count > 0 else { continue }
      var axis = Array(axes[..<hidden])
      map.apply(&axis, 1, kernels)
      let length = axis.reduce(0) { $0 + $1 * $1 }.squareRoot()
      #expect(abs(abs(axis[0]) - length) < 1e-4 * length)
    }
  }

  /// Every kernel, every tail, whichever rows stand beside a row, up to the most axes that there may be.
  @Test func everyKernelReflectsAlike() {
    for (count, hidden) in [(3, 5), (4, 16), (9, 37), (16, 64), (511, 33), (Reflections.most, 520)] {
      // Of a size with which no sum grows with the number of axes.
      let w = normalFloats(count * hidden, seed: 1).map { $0 / Float(count) }
      let v = normalFloats(count * hidden, seed: 2)
      let x = normalFloats(7 * hidden, seed: 3)
      var first: [Float]?
      for variant in CodecKernelTests.variants {
        var y = x
        variant.reflect(&y, 7, w, v, count, hidden)
        var apart = x
        apart.withUnsafeMutableBufferPointer { rows in
          for row in 0..<7 { variant.reflect(rows.baseAddress! + row * hidden, 1, w, v, count, hidden) }
        }
        #expect(y == apart)
        if let first { #expect(first == y) } else { first = y }
      }
      for row in 0..<7 {
        let products = (0..<count).map { j in
          (0..<hidden).reduce(0.0) { $0 + Double(x[row * hidden + $1]) * Double(w[j * hidden + $1]) }
        }
        for column in 0..<hidden {
          var expected = Double(x[row * hidden + column])
          for j in 0..<count { expected -= products[j] * Double(v[j * hidden + column]) }
          #expect(abs(Double(first![row * hidden + column]) - expected) < 1e-3)
        }
      }
    }
  }
}
