import CCrosspointKernels
import CrosspointCore
import CrosspointTokens

/// Scratch of one entropy-coded frame, cut from the codec's workspace.
struct EntropyWorkspace {
  /// `[rows × hidden]`: rows without their group's mean; later the coded words.
  let residuals: UnsafeMutablePointer<Float>
  /// `[groups × hidden]`: mean rows.
  let means: UnsafeMutablePointer<Float>
  /// `[rows]`: root mean square of a residual; 0 of a row without one, NaN of a row that holds no number.
  let norms: UnsafeMutablePointer<Float>
  /// `[hidden]`: root mean square of each column, rows taken relative to their norm.
  let spreads: UnsafeMutablePointer<Float>
  /// `[hidden]`: what a row is weighted with before its spread is measured.
  let weights: UnsafeMutablePointer<Float>
  /// `[max(hidden, rows)]`: integers that are about to become tokens.
  let integers: UnsafeMutablePointer<Int32>
  let columns: UnsafeMutablePointer<UInt8>
  /// `[hidden]`: contexts of a row's elements.
  let contexts: UnsafeMutablePointer<UInt8>
  let counts: UnsafeMutablePointer<UInt32>
  let sums: UnsafeMutablePointer<Float>
  let symbols: UnsafeMutablePointer<UInt32>
  let rounding: UnsafeMutablePointer<Float>
  /// `[rows]`: what the frame says of each row.
  let rowClasses: UnsafeMutablePointer<Int32>
  /// `[rows]`: under which numbers a memory knows the rows' anchors.
  let numbers: UnsafeMutablePointer<Int32>
  /// `[rows]`: the class of what a row weighs; nothing where rows do not.
  let weightClasses: UnsafeMutablePointer<Int32>
  /// Tokens in the order of the body.
  let tokens: UnsafeMutablePointer<UInt8>
  let plain: UnsafeMutablePointer<UInt8>
  /// One behind the space for words, which are written from here backwards.
  let wordsEnd: UnsafeMutablePointer<UInt8>

  init(rows: Int, groups: Int, weighted: Bool, codec: RowCodec) throws(CrosspointError) {
    let hidden = codec.hidden
    let integerCount = rows * (hidden + (weighted ? 3 : 2)) + (min(rows, groups) + 1) * hidden
    let wordBytes = max(4 * rows * hidden, integerCount * 11 / 8 + 96)
    var size = 0
    func cut(_ bytes: Int) -> Int {
      defer { size += (bytes + 63) & ~63 }
      return size
    }
    let residualsAt = cut(wordBytes)
    let meansAt = cut(4 * groups * hidden)
    let normsAt = cut(4 * rows)
    let spreadsAt = cut(4 * hidden)
    let weightsAt = cut(4 * hidden)
    let integersAt = cut(4 * max(hidden, rows))
    let columnsAt = cut(hidden)
    let contextsAt = cut(hidden)
    let countsAt = cut(4 * EntropyBody.countCopies * EntropyBody.contextCapacity * EntropyBody.stride)
    let sumsAt = cut(4 * EntropyBody.countCopies * EntropyBody.contextCapacity * 4)
    let symbolsAt = cut(4 * EntropyBody.contextCapacity * EntropyBody.stride)
    let roundingAt = cut(4 * EntropyBody.contextCapacity)
    let classesAt = cut(4 * rows)
    let numbersAt = cut(4 * rows)
    let weightClassesAt = cut(weighted ? 4 * rows : 0)
    let tokensAt = cut(integerCount)
    let plainAt = cut(4 * integerCount + 16)
    let base = try codec.workspace(bytes: size).base
    func floats(_ offset: Int) -> UnsafeMutablePointer<Float> { (base + offset).assumingMemoryBound(to: Float.self) }
    func bytes(_ offset: Int) -> UnsafeMutablePointer<UInt8> { (base + offset).assumingMemoryBound(to: UInt8.self) }
    func words(_ offset: Int) -> UnsafeMutablePointer<UInt32> { (base + offset).assumingMemoryBound(to: UInt32.self) }
    func signed(_ offset: Int) -> UnsafeMutablePointer<Int32> { (base + offset).assumingMemoryBound(to: Int32.self) }
    residuals = floats(residualsAt)
    means = floats(meansAt)
    norms = floats(normsAt)
    spreads = floats(spreadsAt)
    weights = floats(weightsAt)
    integers = signed(integersAt)
    columns = bytes(columnsAt)
    contexts = bytes(contextsAt)
    counts = words(countsAt)
    sums = floats(sumsAt)
    symbols = words(symbolsAt)
    rounding = floats(roundingAt)
    rowClasses = signed(classesAt)
    numbers = signed(numbersAt)
    weightClasses = signed(weightClassesAt)
    tokens = bytes(tokensAt)
    plain = bytes(plainAt)
    wordsEnd = bytes(residualsAt + wordBytes)
  }
}
