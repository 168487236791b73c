import CCrosspointKernels
import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Entropy-coded rows to the body of a frame (docs/wire-format.md).
struct EntropyEncoder {
  let codec: RowCodec
  let groups: [RowSource]
  let rows: Int
  /// The frame's header.
  let frame: UnsafeMutableRawPointer
  let space: EntropyWorkspace

  var hidden: Int { codec.hidden }
  func isCentred(_ group: Int) -> Bool { FrameHeader.group(group, of: frame).centred }

  /// Rows that the search for a step looks at.
  private static let searchedRows = 512
  /// What a frame has once, tables above all, counts up to this part of its budget: small frames take more, rather than
  /// that nothing is left for their rows.
  private static let mostFixed = 1.0 / 16
  /// The step of elements over that of means, about.
  private static let meanSharpness: Float = 4

  /// Appends all groups as one body of at most `rate` bits per element (small frames: see `mostFixed`).
  static func encode(_ groups: [RowSource], rate: Double, to body: inout BodyWriter) throws(CrosspointError) {
    let rows = groups.reduce(0) { $0 + $1.rows }
    guard rows > 0 else {
      for index in groups.indices { FrameHeader.setGroup(index, rows: 0, centred: false, in: body.header) }
      return
    }
    let codec = body.codec
    let space = try EntropyWorkspace(rows: rows, groups: groups.count, hidden: codec.hidden, pool: codec.pool)
    defer { codec.pool.release(space.buffer) }
    let encoder = EntropyEncoder(codec: codec, groups: groups, rows: rows, frame: body.header, space: space)
    try encoder.centreGroups(body)
    let form = encoder.form(rate: rate)
    body.advance(by: encoder.write(form, into: body.next))
  }

  /// The step, and the step of means, with which the body takes `rate` bits per element.
  private func form(rate: Double) -> EntropyBody {
    let typical = typicalNorm()
    // A mean need not be much sharper than the rows around it.
    let meanStep = Self.legal(typical.norm * Float(exp2(1.5 - rate)) / Self.meanSharpness)
    var form = EntropyBody(step: meanStep, meanStep: meanStep, shift: EntropyBody.shift(elements: rows * hidden))
    var first = 0
    for (index, group) in groups.enumerated() {
      if isCentred(index) { sharpen(group: index, rows: first..<first + group.rows, form) }
      first += group.rows
    }
    measureSpreads(ordinary: typical.rows, typical: typical.norm)
    let budget = rate * Double(rows) * Double(hidden)
    form.step = search(budget, form, typical.norm)
    // The search saw a sample; the whole may take a little more.
    for _ in 0..<4 {
      let bits = tally(form, budget, rowStride: 1)
      if bits <= budget { break }
      form.step = Self.legal(form.step * Float(exp2((bits / budget - 1) * max(rate, 0.5) * 1.1 + 0.002)))
    }
    return form
  }

  private static func legal(_ step: Float) -> Float { min(max(step, .leastNormalMagnitude), EntropyBody.coarsestStep) }

  /// The finest step, to a thousandth of an octave, whose sampled cost is within the budget.
  private func search(_ budget: Double, _ form: EntropyBody, _ typical: Float) -> Float {
    let rowStride = (rows + Self.searchedRows - 1) / Self.searchedRows
    let elements = Double(rows * hidden)
    // In octaves of step over typical norm.
    // The norm may be that of one column alone, up to 2^126 times as large as the others.
    var fine = -150.0
    var coarse = 6.0
    var trial = min(max(1.5 - budget / elements, fine), coarse)
    // Bits per octave: one at high rates, less where many elements are zero.
    var slope = 1.0
    var last = (trial: trial, excess: 0.0)
    var form = form
    var tries = 0
    while coarse - fine >= 0.001 {
      form.step = Self.legal(typical * Float(exp2(trial)))
      let bits = tally(form, budget, rowStride: rowStride)
      let excess = (bits - budget) / elements
      if excess > 0 { fine = trial } else { coarse = trial }
      if excess <= 0 && excess > -0.001 * budget / elements { break }
      if tries > 0 { slope = min(max((last.excess - excess) / (trial - last.trial), 0.2), 1.2) }
      last = (trial, excess)
      tries += 1
      // A little beyond where the budget is exceeded, since only a step within it can be kept; if that leads nowhere, the
      // middle of what is left.
      let next = trial + excess / slope + (excess > 0 ? 0.001 : 0)
      trial = tries < 10 && next > fine && next < coarse ? next : (fine + coarse) / 2
    }
    return Self.legal(typical * Float(exp2(coarse)))
  }

  /// The bits of a body at a step; of every `rowStride`-th row, scaled up to all.
  private func tally(_ form: EntropyBody, _ budget: Double, rowStride: Int) -> Double {
    prepare(form)
    var scale = xp_entropy_scale(
      offset: 0, last: EntropyBody.lastClass, shift: Int32(form.shift), first: Int32(EntropyBody.elements))
    for row in stride(from: 0, to: rows, by: rowStride) {
      var rowClass = classify(row: row)
      codec.kernels.entropy_tokens(space.tokens, nil, space.counts, &rowClass, 1, EntropyBody.rows)
      guard rowClass < EntropyBody.zeroRow else { continue }
      let own = form.scale(ofRow: rowClass)
      scale.offset = own.offset
      codec.kernels.entropy_contexts(space.contexts, space.columns, hidden, &scale)
      codec.kernels.entropy_quantise(
        space.tokens, nil, space.counts, space.sums, space.residuals + row * hidden, hidden, space.contexts,
        space.rounding, 1 / own.step)
    }
    let sampled = (rows + rowStride - 1) / rowStride
    var rowBits = 0.0
    for context in 0..<form.contexts {
      rowBits += EntropyTable.normalise(
        space.counts + context * EntropyBody.stride, into: space.symbols + context * EntropyBody.stride)
    }
    // Once per frame: columns, tables, means.
    space.counts.update(repeating: 0, count: 3 * EntropyBody.stride)
    columnSteps()
    codec.kernels.entropy_tokens(space.tokens, nil, space.counts, space.integers, hidden, EntropyBody.columns)
    for index in groups.indices where isCentred(index) {
      quantiseMean(form, group: index, into: space.tokens, nil)
    }
    var fixedBits = 8.0 * Double(EntropyBody.fixedBytes + EntropyBody.finalBytes)
    for context in [EntropyBody.columns, EntropyBody.means] {
      fixedBits += EntropyTable.normalise(
        space.counts + Int(context) * EntropyBody.stride, into: space.symbols + Int(context) * EntropyBody.stride)
    }
    for context in 0..<form.contexts {
      fixedBits += 8 * Double(tableBytes(context, form))
    }
    return rowBits * Double(rows) / Double(sampled) + min(fixedBits, budget * Self.mostFixed)
  }

  private func prepare(_ form: EntropyBody) {
    space.counts.update(repeating: 0, count: EntropyWorkspace.contextCapacity * EntropyBody.stride)
    space.sums.update(repeating: 0, count: 4 * EntropyWorkspace.contextCapacity)
    classifyColumns(form)
    setRounding(form)
    space.rounding[Int(EntropyBody.means)] = 0.5
  }

  private func columnSteps() {
    var last: Int32 = 0
    for column in 0..<hidden {
      space.integers[column] = Int32(space.columns[column]) - last
      last = Int32(space.columns[column])
    }
  }

  private func tableBytes(_ context: Int, _ form: EntropyBody) -> Int {
    var bytes = 1
    var last = 0
    for token in 0..<EntropyBody.tokens {
      let frequency = space.symbols[context * EntropyBody.stride + token] & 0xFFFF
      bytes += frequency < 128 ? 1 : 2
      if frequency > 0 { last = bytes }
    }
    return last == 0 ? 1 : last + (context >= Int(EntropyBody.elements) ? 2 : 0)
  }

  /// Codes everything at a step.
  private func write(_ form: EntropyBody, into body: UnsafeMutableRawPointer) -> Int {
    prepare(form)
    var scale = xp_entropy_scale(
      offset: 0, last: EntropyBody.lastClass, shift: Int32(form.shift), first: Int32(EntropyBody.elements))
    var writer = xp_entropy_writer(bits: space.plain, buffer: 0, count: 0)
    var tokens = space.tokens
    func put(_ values: UnsafePointer<Int32>, _ count: Int, _ context: UInt8) {
      codec.kernels.entropy_tokens(tokens, &writer, space.counts, values, count, context)
      tokens += count
    }
    columnSteps()
    put(space.integers, hidden, EntropyBody.columns)
    var row = 0
    for (index, group) in groups.enumerated() {
      if isCentred(index) {
        quantiseMean(form, group: index, into: tokens, &writer)
        tokens += hidden
      }
      for _ in 0..<group.rows {
        space.rowClasses[row] = classify(row: row)
        put(space.rowClasses + row, 1, EntropyBody.rows)
        if space.rowClasses[row] < EntropyBody.zeroRow {
          let own = form.scale(ofRow: space.rowClasses[row])
          scale.offset = own.offset
          codec.kernels.entropy_contexts(space.contexts, space.columns, hidden, &scale)
          codec.kernels.entropy_quantise(
            tokens, &writer, space.counts, space.sums, space.residuals + row * hidden, hidden, space.contexts,
            space.rounding, 1 / own.step)
          tokens += hidden
        }
        row += 1
      }
    }
    for context in 0..<form.contexts {
      _ = EntropyTable.normalise(
        space.counts + context * EntropyBody.stride, into: space.symbols + context * EntropyBody.stride)
    }
    // Residuals are not needed any more: words take their memory.
    var words = space.wordsEnd
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: EntropyBody.states) { states in
      states.update(repeating: EntropyBody.state)
      func take(_ count: Int, _ context: UInt8, contexts: UnsafePointer<UInt8>? = nil) {
        tokens -= count
        words = codec.kernels.entropy_encode(
          words, states.baseAddress, tokens, count, contexts, context, space.symbols)!
      }
      for (index, group) in groups.enumerated().reversed() {
        for _ in 0..<group.rows {
          row -= 1
          if space.rowClasses[row] < EntropyBody.zeroRow {
            scale.offset = form.scale(ofRow: space.rowClasses[row]).offset
            codec.kernels.entropy_contexts(space.contexts, space.columns, hidden, &scale)
            take(hidden, 0, contexts: space.contexts)
          }
          take(1, EntropyBody.rows)
        }
        if isCentred(index) { take(hidden, EntropyBody.means) }
      }
      take(hidden, EntropyBody.columns)
      words -= EntropyBody.finalBytes
      memcpy(words, states.baseAddress!, EntropyBody.finalBytes)
    }
    return assemble(form, writer, words, into: body)
  }

  /// Fixed part, tables, plain bits, states, words.
  private func assemble(
    _ form: EntropyBody, _ writer: xp_entropy_writer, _ words: UnsafeMutablePointer<UInt8>,
    into body: UnsafeMutableRawPointer
  ) -> Int {
    let plainBytes = writer.bits - space.plain + (writer.count > 0 ? 1 : 0)
    body.put(form.step.bitPattern, at: 0)
    body.put(form.meanStep.bitPattern, at: 4)
    body.put(form.shift, at: 8)
    body.put(UInt8(form.contexts), at: 9)
    body.put(UInt16(0), at: 10)
    body.put(UInt64(plainBytes), at: 12)
    var end = EntropyBody.fixedBytes
    for context in 0..<form.contexts {
      let bytes = EntropyTable.write(space.symbols + context * EntropyBody.stride, to: body + end)
      end += bytes
      guard bytes > 1, context >= Int(EntropyBody.elements) else { continue }
      body.put(Self.shrinkage(space.sums + 4 * context), at: end)
      body.put(Self.shrinkage(space.sums + 4 * context + 2), at: end + 1)
      end += 2
    }
    memcpy(body + end, space.plain, plainBytes)
    end += plainBytes
    let wordBytes = space.wordsEnd - words
    memcpy(body + end, words, wordBytes)
    return end + wordBytes
  }

  /// Number and excess of some magnitudes as the byte that says by how much they shrink.
  private static func shrinkage(_ sums: UnsafePointer<Float>) -> UInt8 {
    guard sums[0] > 0 else { return 128 }
    return UInt8(min(max((sums[1] / sums[0] * 256).rounded() + 128, 0), 255))
  }
}
