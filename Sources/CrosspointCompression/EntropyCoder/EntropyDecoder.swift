import CCrosspointKernels
import CrosspointCore
import CrosspointTokens
import Glibc

/// The body of a frame to entropy-coded rows (docs/wire-format.md).
struct EntropyDecoder {
  let codec: RowCodec
  let memory: RowMemory?
  /// The noise that rows have; `nil`: none.
  let dither: RowRounding?
  /// Whether the body says what rows weigh.
  let weighted: Bool
  private var hidden: Int { codec.hidden }

  /// Decodes an entropy-coded body whose checksum is right; whatever it holds, nothing is read beyond it.
  func decode(
    _ body: UnsafeRawBufferPointer, of frame: UnsafeRawPointer, into groups: [RowTarget]
  ) throws(CrosspointError) {
    let rows = groups.reduce(0) { $0 + $1.rows }
    guard rows > 0 else { return }
    let header = try EntropyBody(reading: body, weighted: weighted)
    let space = try DecodingSpace(header, rows: rows, hidden: hidden, pool: codec.pool)
    defer { codec.pool.release(space.buffer) }
    var decoder = try start(header, body, space)
    let bits = decoder.bits!

    try readColumns(&decoder, space)
    codec.kernels.entropy_decode_integers(space.rowClasses, rows, &decoder, EntropyBody.rows)
    if let memory { try findNumbers(memory, groups, &decoder, space) }
    if weighted { try readWeights(header, rows, &decoder, space) }
    var scale = header.scaleOfContexts
    var first = 0
    for (index, group) in groups.enumerated() {
      var mean: UnsafeMutablePointer<Float>?
      if FrameHeader.group(index, of: frame).centred {
        space.contexts.update(repeating: EntropyBody.means, count: hidden)
        codec.kernels.entropy_decode(codec.scratchRow(0), hidden, &decoder, space.contexts, header.meanStep)
        mean = codec.scratchRow(0)
      }
      for row in 0..<group.rows {
        codec.fill(row, of: group) { out in
          switch space.rowClasses[first + row] {
          case EntropyBody.zeroRow: out.update(repeating: 0, count: hidden)
          case EntropyBody.notANumberRow: out.update(repeating: .nan, count: hidden)
          case let rowClass:
            let own = header.scale(ofRow: rowClass)
            scale.offset = own.offset
            codec.kernels.entropy_contexts(space.contexts, space.columns, hidden, &scale)
            codec.kernels.entropy_decode(out, hidden, &decoder, space.contexts, own.step)
            if let dither {
              codec.kernels.dither_uniform(out, out, hidden, -own.step, dither.keyed(by: UInt64(first + row)).key)
            }
          }
          if weighted {
            let weight = EntropyBody.weight(ofClass: space.weightClasses[first + row])
            group.weightsFound?[row] = weight
            if weight < 1 { codec.kernels.scale(out, 1 / weight, out, hidden) }
          }
          if let mean { codec.kernels.axpy(out, 1, mean, hidden) }
        }
      }
      memory?.leave(group.first.floats, space.numbers + first, group.rows, codec)
      first += group.rows
    }
    try Self.checkEnd(decoder, bits: bits)
  }

  /// Reads the tables and finds where words and plain bits begin.
  private func start(
    _ header: EntropyBody, _ body: UnsafeRawBufferPointer, _ space: DecodingSpace
  ) throws(CrosspointError) -> xp_entropy_decoder {
    let base = body.baseAddress!
    var cursor = ByteCursor(base: base, count: body.count, offset: EntropyBody.fixedBytes)
    for context in 0..<header.contexts {
      let used = try EntropyTable.read(&cursor, slots: space.slots + context * EntropyBody.total)
      var below: (Float, Float) = (0, 0)
      if used, context >= Int(EntropyBody.elements) {
        below.0 = Self.shrinkage(try cursor.next())
        below.1 = Self.shrinkage(try cursor.next())
      }
      let levels = space.levels + context * EntropyBody.stride
      levels.update(repeating: 0, count: EntropyBody.stride)
      for magnitude in 1..<EntropyBody.direct {
        let level = Float(magnitude) - (magnitude == 1 ? below.0 : magnitude < 8 ? below.1 : 0)
        (levels[2 * magnitude - 1], levels[2 * magnitude]) = (level, -level)
      }
    }
    let plainBytes: UInt64 = base.get(at: 12)
    guard plainBytes <= body.count - cursor.offset,
      body.count - cursor.offset - Int(plainBytes) >= EntropyBody.finalBytes
    else { throw .corrupt("body", "\(plainBytes) plain bytes in a body of \(body.count)") }
    let bits = (base + cursor.offset).assumingMemoryBound(to: UInt8.self)
    var decoder = xp_entropy_decoder()
    decoder.bits = bits
    decoder.bits_end = bits + Int(plainBytes)
    memcpy(&decoder.states, decoder.bits_end, EntropyBody.finalBytes)
    decoder.words = decoder.bits_end + EntropyBody.finalBytes
    decoder.words_end = (base + body.count).assumingMemoryBound(to: UInt8.self)
    decoder.slots = UnsafePointer(space.slots)
    decoder.levels = UnsafePointer(space.levels)
    return decoder
  }

  private func readColumns(_ decoder: inout xp_entropy_decoder, _ space: DecodingSpace) throws(CrosspointError) {
    codec.kernels.entropy_decode_integers(space.integers, hidden, &decoder, EntropyBody.columns)
    var column: Int32 = 0
    for index in 0..<hidden {
      column &+= space.integers[index]
      guard column >= 0, column <= EntropyBody.lastClass else { throw .corrupt("column", "class \(column)") }
      space.columns[index] = UInt8(column)
    }
  }

  private func readWeights(
    _ header: EntropyBody, _ rows: Int, _ decoder: inout xp_entropy_decoder, _ space: DecodingSpace
  ) throws(CrosspointError) {
    codec.kernels.entropy_decode_integers(space.weightClasses, rows, &decoder, header.weights)
    for row in 0..<rows where !(0...EntropyBody.lastWeight).contains(space.weightClasses[row]) {
      throw .corrupt("weight", "class \(space.weightClasses[row])")
    }
  }

  /// Finds the anchors of all rows: of labels that both ends know, or of the numbers that travel.
  private func findNumbers(
    _ memory: RowMemory, _ groups: [RowTarget], _ decoder: inout xp_entropy_decoder, _ space: DecodingSpace
  ) throws(CrosspointError) {
    let rows = groups.reduce(0) { $0 + $1.rows }
    if memory.sendsLabels {
      codec.kernels.entropy_decode_integers(space.numbers, rows, &decoder, EntropyBody.labels)
      for row in 0..<rows {
        let number = EntropyBody.number(space.numbers[row])
        guard (0...Int32(memory.labels.count)).contains(number) else {
          throw .corrupt("label", "number \(number) of \(memory.labels.count)")
        }
        space.numbers[row] = number
      }
    }
    var first = 0
    for group in groups {
      for row in 0..<group.rows {
        if !memory.sendsLabels { space.numbers[first + row] = memory.number(of: group.labels?[row] ?? -1) }
        group.labelsFound?[row] = memory.label(of: space.numbers[first + row])
      }
      first += group.rows
    }
  }

  /// What is taken off a magnitude to bring it to the mean of what it stands for.
  private static func shrinkage(_ byte: UInt8) -> Float { Float(Int(byte) - 128) / 256 }

  /// Every word and bit must have been used, and the coder be back where it began.
  private static func checkEnd(
    _ decoder: xp_entropy_decoder, bits: UnsafePointer<UInt8>
  ) throws(CrosspointError) {
    let total = 8 * (decoder.bits_end - bits)
    let used = 8 * (decoder.bits - bits + Int(decoder.beyond)) - Int(decoder.count)
    let isBack = withUnsafeBytes(of: decoder.states) { states in
      states.assumingMemoryBound(to: UInt32.self).allSatisfy { $0 == EntropyBody.state }
    }
    let intact =
      decoder.overrun == 0 && decoder.words == decoder.words_end && used <= total && used > total - 8 && isBack
    guard intact else { throw .corrupt("codes", "the entropy-coded body does not end where its rows do") }
  }
}

/// Scratch of a decoder, cut from one buffer of the pool.
private struct DecodingSpace {
  let buffer: BufferPool.Buffer
  let slots: UnsafeMutablePointer<UInt32>
  let levels: UnsafeMutablePointer<Float>
  /// `[hidden]`, `[rows]`, `[rows]`, and `[rows]` where they are weighted.
  let integers: UnsafeMutablePointer<Int32>
  let rowClasses: UnsafeMutablePointer<Int32>
  let numbers: UnsafeMutablePointer<Int32>
  let weightClasses: UnsafeMutablePointer<Int32>
  /// `[hidden]`, each.
  let columns: UnsafeMutablePointer<UInt8>
  let contexts: UnsafeMutablePointer<UInt8>

  init(_ body: EntropyBody, rows: Int, hidden: Int, pool: BufferPool) throws(CrosspointError) {
    let slotWords = body.contexts * EntropyBody.total
    let levelWords = body.contexts * EntropyBody.stride
    let weights = body.weighted ? rows : 0
    buffer = try pool.lease(bytes: 4 * (slotWords + levelWords + hidden + 2 * rows + weights) + 2 * hidden)
    slots = buffer.base.assumingMemoryBound(to: UInt32.self)
    levels = UnsafeMutableRawPointer(slots + slotWords).assumingMemoryBound(to: Float.self)
    integers = UnsafeMutableRawPointer(levels + levelWords).assumingMemoryBound(to: Int32.self)
    rowClasses = integers + hidden
    numbers = rowClasses + rows
    weightClasses = numbers + rows
    columns = UnsafeMutableRawPointer(weightClasses + weights).assumingMemoryBound(to: UInt8.self)
    contexts = columns + hidden
  }
}
