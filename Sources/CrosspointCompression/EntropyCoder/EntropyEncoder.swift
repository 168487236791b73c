import CCrosspointKernels
import CrosspointCore
import CrosspointTokens
import Glibc

/// Entropy-coded rows to the body of a frame (docs/wire-format.md).
struct EntropyEncoder {
  let codec: RowCodec
  let groups: [RowSource]
  let rows: Int
  /// What rows are relative to.
  let memory: RowMemory?
  /// The noise that rows get; `nil`: they are rounded to nearest.
  let dither: RowRounding?
  /// Whether rows are coded as finely as they weigh.
  let weighted: Bool
  /// The frame's header.
  let frame: UnsafeMutableRawPointer
  let space: EntropyWorkspace

  var hidden: Int { codec.hidden }
  private var sendsLabels: Bool { memory?.sendsLabels ?? false }
  func isCentred(_ group: Int) -> Bool { FrameHeader.group(group, of: frame).centred }

  /// Elements that the search for a step looks at, and from which the means of what is rounded alike are taken, of so many
  /// rows at least.
  private static let searchedElements = 1 << 17
  private static let leastSearchedRows = 64
  /// Steps that are tried on all rows, until one keeps the budget and makes use of it.
  private static let mostAttempts = 5
  /// The part of a budget that must be used, unless that many steps do not get there.
  private static let leastUse = 0.99
  /// The step of elements over that of means, about.
  private static let meanSharpness: Float = 4

  /// Appends all groups as one body of at most `rate` bits per element (small frames: see ``WireFormat/entropyFixedPart``).
  static func encode(
    _ groups: [RowSource], rate: Double, weighted: Bool, to body: inout BodyWriter
  ) throws(CrosspointError) {
    let rows = groups.reduce(0) { $0 + $1.rows }
    guard rows > 0 else {
      for index in groups.indices { FrameHeader.setGroup(index, rows: 0, centred: false, in: body.header) }
      return
    }
    let codec = body.codec
    let space = try EntropyWorkspace(rows: rows, groups: groups.count, weighted: weighted, codec: codec)
    let encoder = EntropyEncoder(
      codec: codec, groups: groups, rows: rows, memory: body.memory,
      dither: body.rounding.isUnbiased ? body.rounding : nil, weighted: weighted, frame: body.header, space: space)
    try encoder.centreGroups(body)
    let (form, tokens) = encoder.quantise(rate: rate)
    body.advance(by: encoder.write(form, tokens, into: body.next))
  }

  /// Tokens under way, in the order of the body.
  private struct Tokens {
    var end: UnsafeMutablePointer<UInt8>
    var writer: xp_entropy_writer
  }

  /// Everything as tokens, with the step at which the body takes `rate` bits per element.
  private func quantise(rate: Double) -> (EntropyBody, Tokens) {
    var typical = typicalNorm()
    // A mean need not be much sharper than the rows around it.
    let meanStep = Self.legal(typical.norm * Float(exp2(1.5 - rate)) / Self.meanSharpness)
    var form = EntropyBody(
      step: meanStep, meanStep: meanStep, shift: EntropyBody.shift(elements: rows * hidden), weighted: weighted)
    var first = 0
    for (index, group) in groups.enumerated() {
      if isCentred(index) { sharpen(group: index, rows: first..<first + group.rows, form) }
      first += group.rows
    }
    if weighted {
      weighRows()
      typical = typicalNorm()
    }
    measureSpreads(ordinary: typical.rows, typical: typical.norm)
    setRounding(form)
    let budget = rate * Double(rows) * Double(hidden)
    if let tokens = search(budget, &form, typical.norm) { return (form, tokens) }
    // The search saw a sample; the whole may take a little more or less.
    for _ in 1..<Self.mostAttempts {
      let (tokens, bits) = quantise(form, budget, rowStride: 1)
      if bits <= budget && bits >= budget * Self.leastUse { return (form, tokens) }
      form.step = Self.legal(form.step * Float(exp2((bits / budget - 1) * max(rate, 0.5) * 1.1 + 0.002)))
    }
    return (form, quantise(form, budget, rowStride: 1).tokens)
  }

  /// A sample is each so many-th row.
  private var sampleStride: Int {
    let most = max(Self.leastSearchedRows, Self.searchedElements / hidden)
    return (rows + most - 1) / most
  }

  private static func legal(_ step: Float) -> Float { min(max(step, .leastNormalMagnitude), EntropyBody.coarsestStep) }

  /// Finds the finest step, to a thousandth of an octave, whose sampled cost is within the budget; returns the tokens if
  /// all rows were the sample and make use of the budget.
  private func search(_ budget: Double, _ form: inout EntropyBody, _ typical: Float) -> Tokens? {
    // Odd, since what is periodic in rows has often a power of two for a period.
    let rowStride = sampleStride | 1
    let elements = Double(rows * hidden)
    // In octaves of step over typical norm.
    // The norm may be that of one column alone, up to 2^126 times as large as the others.
    var fine = -150.0
    var coarse = 6.0
    var trial = min(max(1.5 - budget / elements, fine), coarse)
    // Bits per octave: one at high rates, less where many elements are zero.
    var slope = 1.0
    var last = (trial: trial, excess: 0.0)
    var tries = 0
    while coarse - fine >= 0.001 {
      form.step = Self.legal(typical * Float(exp2(trial)))
      let (tokens, bits) = quantise(form, budget, rowStride: rowStride)
      let excess = (bits - budget) / elements
      if excess > 0 { fine = trial } else { coarse = trial }
      if excess <= 0 && excess > -0.001 * budget / elements { return rowStride == 1 ? tokens : nil }
      if tries > 0 { slope = min(max((last.excess - excess) / (trial - last.trial), 0.2), 1.2) }
      last = (trial, excess)
      tries += 1
      // A little beyond where the budget is exceeded, since only a step within it can be kept; if that leads nowhere, the
      // middle of what is left.
      let next = trial + excess / slope + (excess > 0 ? 0.001 : 0)
      trial = tries < 10 && next > fine && next < coarse ? next : (fine + coarse) / 2
    }
    form.step = Self.legal(typical * Float(exp2(coarse)))
    return nil
  }

  /// Turns every `rowStride`-th row into tokens at a step; also returns the bits of a body with as many for all rows.
  private func quantise(
    _ form: EntropyBody, _ budget: Double, rowStride: Int
  ) -> (tokens: Tokens, bits: Double) {
    space.counts.update(repeating: 0, count: EntropyBody.countCopies * form.contexts * EntropyBody.stride)
    classifyColumns(form)
    var tokens = Tokens(end: space.tokens, writer: xp_entropy_writer(bits: space.plain, buffer: 0, count: 0))
    columnSteps()
    put(space.integers, hidden, EntropyBody.columns, &tokens)
    let sampled = (rows + rowStride - 1) / rowStride
    for index in 0..<sampled { space.rowClasses[index] = classify(row: index * rowStride) }
    put(space.rowClasses, sampled, EntropyBody.rows, &tokens)
    if sendsLabels {
      for index in 0..<sampled { space.integers[index] = EntropyBody.integer(space.numbers[index * rowStride]) }
      put(space.integers, sampled, EntropyBody.labels, &tokens)
    }
    if weighted {
      for index in 0..<sampled { space.integers[index] = space.weightClasses[index * rowStride] }
      put(space.integers, sampled, form.weights, &tokens)
    }
    var (first, index) = (0, 0)
    for (number, group) in groups.enumerated() {
      if isCentred(number) { putMean(form, group: number, &tokens) }
      first += group.rows
      while index * rowStride < first {
        putElements(form, ofRow: index * rowStride, space.rowClasses[index], &tokens)
        index += 1
      }
    }
    return (tokens, cost(form, budget, scale: Double(rows) / Double(sampled)))
  }

  private func put(_ values: UnsafePointer<Int32>, _ count: Int, _ context: UInt8, _ tokens: inout Tokens) {
    codec.kernels.entropy_tokens(tokens.end, &tokens.writer, space.counts, values, count, context)
    tokens.end += count
  }

  private func putMean(_ form: EntropyBody, group: Int, _ tokens: inout Tokens) {
    space.contexts.update(repeating: EntropyBody.means, count: hidden)
    codec.kernels.entropy_quantise(
      tokens.end, &tokens.writer, space.counts, space.means + group * hidden, hidden, space.contexts,
      space.rounding, 1 / form.meanStep)
    tokens.end += hidden
  }

  private func putElements(
    _ form: EntropyBody, ofRow row: Int, _ rowClass: Int32, _ tokens: inout Tokens
  ) {
    guard let step = setContexts(form, rowClass) else { return }
    var elements = UnsafePointer(space.residuals + row * hidden)
    if let dither {
      codec.kernels.dither_uniform(codec.scratchRow(1), elements, hidden, step, dither.keyed(by: UInt64(row)).key)
      elements = UnsafePointer(codec.scratchRow(1))
    }
    codec.kernels.entropy_quantise(
      tokens.end, &tokens.writer, space.counts, elements, hidden, space.contexts,
      space.rounding, 1 / step)
    tokens.end += hidden
  }

  /// Finds the contexts of a row's elements; returns its step, `nil` for a row that has no elements.
  private func setContexts(_ form: EntropyBody, _ rowClass: Int32) -> Float? {
    guard rowClass < EntropyBody.zeroRow else { return nil }
    let own = form.scale(ofRow: rowClass)
    var scale = form.scaleOfContexts
    scale.offset = own.offset
    codec.kernels.entropy_contexts(space.contexts, space.columns, hidden, &scale)
    return own.step
  }

  /// The bits of a body whose tokens have been counted, those of rows times a scale; makes the tables.
  private func cost(_ form: EntropyBody, _ budget: Double, scale: Double) -> Double {
    codec.kernels.entropy_sum_counts(space.counts, form.contexts)
    var rowBits = 0.0
    // Once per frame: columns, tables, means.
    var fixedBits = 8 * Double(EntropyBody.fixedBytes + EntropyBody.finalBytes)
    for context in 0..<form.contexts {
      let bits = EntropyTable.normalise(space.counts + context * EntropyBody.stride, into: symbols(context))
      if [EntropyBody.columns, EntropyBody.means].contains(UInt8(context)) {
        fixedBits += bits
      } else {
        rowBits += bits
      }
      let table = EntropyTable.bytes(symbols(context))
      fixedBits += 8 * Double(table > 1 && context >= Int(EntropyBody.elements) ? table + 2 : table)
    }
    return rowBits * scale + min(fixedBits, budget * WireFormat.entropyFixedPart)
  }

  private func symbols(_ context: Int) -> UnsafeMutablePointer<UInt32> { space.symbols + context * EntropyBody.stride }

  private func columnSteps() {
    var last: Int32 = 0
    for column in 0..<hidden {
      space.integers[column] = Int32(space.columns[column]) - last
      last = Int32(space.columns[column])
    }
  }

  /// By how much magnitudes exceed what they stand for, of a sample.
  private func sumExcess(_ form: EntropyBody) {
    let count = 4 * EntropyBody.contextCapacity
    space.sums.update(repeating: 0, count: EntropyBody.countCopies * count)
    // Noise makes up for it.
    guard dither == nil else { return }
    for row in stride(from: 0, to: rows, by: sampleStride) {
      guard let step = setContexts(form, space.rowClasses[row]) else { continue }
      codec.kernels.entropy_excess(
        space.sums, space.residuals + row * hidden, hidden, space.contexts, space.rounding, 1 / step)
    }
    for copy in 1..<EntropyBody.countCopies {
      codec.kernels.axpy(space.sums, 1, space.sums + copy * count, count)
    }
  }

  /// Codes all tokens, last first. Residuals are not needed any more: words take their memory.
  private func write(_ form: EntropyBody, _ tokens: Tokens, into body: UnsafeMutableRawPointer) -> Int {
    sumExcess(form)
    var (end, words) = (tokens.end, space.wordsEnd)
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: EntropyBody.states) { states in
      states.update(repeating: EntropyBody.state)
      func take(_ count: Int, _ context: UInt8, contexts: UnsafePointer<UInt8>? = nil) {
        end -= count
        words = codec.kernels.entropy_encode(words, states.baseAddress, end, count, contexts, context, space.symbols)!
      }
      var row = rows
      for (index, group) in groups.enumerated().reversed() {
        for _ in 0..<group.rows {
          row -= 1
          if setContexts(form, space.rowClasses[row]) != nil { take(hidden, 0, contexts: space.contexts) }
        }
        if isCentred(index) { take(hidden, EntropyBody.means) }
      }
      if weighted { take(rows, form.weights) }
      if sendsLabels { take(rows, EntropyBody.labels) }
      take(rows, EntropyBody.rows)
      take(hidden, EntropyBody.columns)
      words -= EntropyBody.finalBytes
      memcpy(words, states.baseAddress!, EntropyBody.finalBytes)
    }
    return assemble(form, tokens.writer, words, into: body)
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
      let bytes = EntropyTable.write(symbols(context), to: body + end)
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
