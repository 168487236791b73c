import CCrosspointKernels
import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The body of a frame to entropy-coded rows (docs/wire-format.md).
struct EntropyDecoder {
  let codec: RowCodec
  private var hidden: Int { codec.hidden }

  /// Decodes an entropy-coded body whose checksum is right; whatever it holds, nothing is read beyond it.
  func decode(
    _ body: UnsafeRawBufferPointer, of frame: UnsafeRawPointer, into groups: [RowTarget]
  ) throws(CrosspointError) {
    guard groups.contains(where: { $0.rows > 0 }) else { return }
    let least = EntropyBody.fixedBytes + EntropyBody.finalBytes
    guard body.count >= least, let base = body.baseAddress else {
      throw .corrupt("body bytes", "\(body.count); an entropy-coded body takes \(least) at least")
    }
    let step = Float(bitPattern: base.get(at: 0))
    let meanStep = Float(bitPattern: base.get(at: 4))
    let shift: UInt8 = base.get(at: 8)
    let contexts: UInt8 = base.get(at: 9)
    let reserved: UInt16 = base.get(at: 10)
    let plainBytes: UInt64 = base.get(at: 12)
    let header = EntropyBody(step: step, meanStep: meanStep, shift: shift)
    guard step.isNormal, step > 0, meanStep.isNormal, meanStep > 0, shift <= EntropyBody.coarsest,
      Int(contexts) == header.contexts, reserved == 0
    else {
      throw .corrupt(
        "body", "steps \(step), \(meanStep), classes shifted by \(shift), \(contexts) contexts, \(reserved)")
    }

    let symbolsAt = header.contexts * EntropyBody.total
    let levelsAt = symbolsAt + header.contexts * 4 * EntropyBody.stride
    let integersAt = levelsAt + header.contexts * 4 * EntropyBody.plainTokens
    let columnsAt = integersAt + 4 * hidden
    let contextsAt = columnsAt + hidden
    let memory = try codec.pool.lease(bytes: contextsAt + hidden)
    defer { codec.pool.release(memory) }
    let slots = memory.base.assumingMemoryBound(to: UInt8.self)
    let symbols = (memory.base + symbolsAt).assumingMemoryBound(to: UInt32.self)
    let levels = (memory.base + levelsAt).assumingMemoryBound(to: Float.self)
    let integers = (memory.base + integersAt).assumingMemoryBound(to: Int32.self)
    let columns = (memory.base + columnsAt).assumingMemoryBound(to: UInt8.self)
    let rowContexts = (memory.base + contextsAt).assumingMemoryBound(to: UInt8.self)

    var cursor = ByteCursor(base: base, count: body.count, offset: EntropyBody.fixedBytes)
    for context in 0..<header.contexts {
      let used = try EntropyTable.read(
        &cursor, symbols: symbols + context * EntropyBody.stride, slots: slots + context * EntropyBody.total)
      var below: (Float, Float) = (0, 0)
      if used, context >= Int(EntropyBody.elements) {
        below.0 = Self.shrinkage(try cursor.next())
        below.1 = Self.shrinkage(try cursor.next())
      }
      let row = levels + context * EntropyBody.plainTokens
      row[0] = 0
      row[1] = 1 - below.0
      for magnitude in 2..<EntropyBody.plainTokens { row[magnitude] = Float(magnitude) - below.1 }
    }
    guard plainBytes <= body.count - cursor.offset,
      body.count - cursor.offset - Int(plainBytes) >= EntropyBody.finalBytes
    else { throw .corrupt("body", "\(plainBytes) plain bytes in a body of \(body.count)") }
    let bits = (base + cursor.offset).assumingMemoryBound(to: UInt8.self)
    let bitsEnd = bits + Int(plainBytes)
    var decoder = xp_entropy_decoder()
    memcpy(&decoder.states, bitsEnd, EntropyBody.finalBytes)
    decoder.words = bitsEnd + EntropyBody.finalBytes
    decoder.words_end = (base + body.count).assumingMemoryBound(to: UInt8.self)
    decoder.bits = bits
    decoder.bits_end = bitsEnd
    decoder.slots = UnsafePointer(slots)
    decoder.symbols = UnsafePointer(symbols)
    decoder.levels = UnsafePointer(levels)

    codec.kernels.entropy_decode_integers(integers, hidden, &decoder, EntropyBody.columns)
    var column: Int32 = 0
    for index in 0..<hidden {
      column &+= integers[index]
      guard column >= 0, column <= EntropyBody.lastClass else { throw .corrupt("column", "class \(column)") }
      columns[index] = UInt8(column)
    }
    var scale = xp_entropy_scale(
      offset: 0, last: EntropyBody.lastClass, shift: Int32(shift), first: Int32(EntropyBody.elements))
    for (index, group) in groups.enumerated() {
      var mean: UnsafeMutablePointer<Float>?
      if FrameHeader.group(index, of: frame).centred {
        rowContexts.update(repeating: EntropyBody.means, count: hidden)
        codec.kernels.entropy_decode(codec.scratchRow(0), hidden, &decoder, rowContexts, meanStep)
        mean = codec.scratchRow(0)
      }
      for row in 0..<group.rows {
        let out = group.base + row * hidden
        var rowClass: Int32 = 0
        codec.kernels.entropy_decode_integers(&rowClass, 1, &decoder, EntropyBody.rows)
        switch rowClass {
        case EntropyBody.zeroRow: out.update(repeating: 0, count: hidden)
        case EntropyBody.notANumberRow: out.update(repeating: .nan, count: hidden)
        default:
          let own = header.scale(ofRow: rowClass)
          scale.offset = own.offset
          codec.kernels.entropy_contexts(rowContexts, columns, hidden, &scale)
          codec.kernels.entropy_decode(out, hidden, &decoder, rowContexts, own.step)
        }
        if let mean { codec.kernels.axpy(out, 1, mean, hidden) }
      }
    }
    try Self.checkEnd(decoder, bits: bits)
  }

  /// What is taken off a magnitude to bring it to the mean of what it stands for.
  private static func shrinkage(_ byte: UInt8) -> Float { Float(Int(byte) - 128) / 256 }

  /// Every word and bit must have been used, and the coder be back where it began.
  private static func checkEnd(
    _ decoder: xp_entropy_decoder, bits: UnsafePointer<UInt8>
  ) throws(CrosspointError) {
    let states = decoder.states
    let total = 8 * (decoder.bits_end - bits)
    let used = 8 * (decoder.bits - bits + Int(decoder.beyond)) - Int(decoder.count)
    let intact =
      decoder.overrun == 0 && decoder.words == decoder.words_end && used <= total && used > total - 8
      && states.0 == EntropyBody.state && states.1 == EntropyBody.state && states.2 == EntropyBody.state
      && states.3 == EntropyBody.state && states.4 == EntropyBody.state && states.5 == EntropyBody.state
      && states.6 == EntropyBody.state && states.7 == EntropyBody.state
    guard intact else { throw .corrupt("codes", "the entropy-coded body does not end where its rows do") }
  }
}
