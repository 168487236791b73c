import CCrosspointKernels
import CrosspointCore
import Glibc

/// What both ends know of an entropy-coded body: its fixed part, its contexts, and the step of a row
/// (docs/wire-format.md).
///
/// All elements of a frame share one step, which is the best there is for the error of the whole; what differs between
/// them, their spread, decides only how they are coded. The spread of an element is that of its column times that of its
/// row, in classes of a quarter of an octave.
struct EntropyBody {
  /// Step, step of means, granularity, contexts, two reserved bytes, bytes of plain bits.
  static let fixedBytes = 20
  /// The state that every coder starts from and every decoder must end in.
  static let state: UInt32 = 1 << 15
  static let states = 16
  static let finalBytes = 4 * states

  /// Sums of all frequencies under a context.
  static let total = 2048
  /// Tokens of a table in memory.
  static let stride = 64
  /// Contexts of the tables in memory, and copies of their counts and sums (`codec_entropy.h`).
  static let contextCapacity = 64
  static let countCopies = 4
  /// Magnitudes of which a token says all, sign included: 2m − 1 of +m, 2m of −m.
  static let direct = 16

  // Contexts.
  static let columns: UInt8 = 0
  static let rows: UInt8 = 1
  static let means: UInt8 = 2
  static let labels: UInt8 = 3
  static let elements: UInt8 = 4

  static let coarsestStep: Float = 0x1p120

  /// Classes of spread over step: 2^(−4) to 2^7 in quarter octaves, counted from 0.
  static let lastClass: Int32 = 44
  static let classOfOne: Int32 = 16
  /// What shifts a class into its context when few elements share the tables: all classes one.
  static let coarsest: UInt8 = 6
  /// A row's class, relative to the frame, within which the frame's step holds.
  static let ordinaryRow: Int32 = 12
  /// Row classes that say something else.
  static let zeroRow: Int32 = 2000
  static let notANumberRow: Int32 = 2001

  /// Classes of what a row weighs, in half octaves below the heaviest of the frame.
  static let lastWeight: Int32 = 12

  var step: Float
  let meanStep: Float
  /// Right shift of classes.
  let shift: UInt8
  /// Whether it says what rows weigh.
  let weighted: Bool

  var contexts: Int { Int(Self.elements) + Int(Self.lastClass >> Int32(shift)) + (weighted ? 2 : 1) }
  /// That of weights, if they are said.
  var weights: UInt8 { UInt8(contexts - 1) }

  /// Fewer contexts where few elements would have to pay for their tables.
  static func shift(elements: Int) -> UInt8 {
    switch elements {
    case ..<4096: coarsest
    case ..<16384: 2
    case ..<65536: 1
    default: 0
    }
  }

  /// The step of a row and what its class adds to that of its columns: rows far from the others have a step of their own,
  /// so that their error stays in proportion.
  func scale(ofRow rowClass: Int32) -> (step: Float, offset: Int32) {
    var octaves: Int32 = 0
    if rowClass > Self.ordinaryRow { octaves = (rowClass - Self.ordinaryRow + 3) / 4 }
    if rowClass < -Self.ordinaryRow { octaves = -((-Self.ordinaryRow - rowClass + 3) / 4) }
    let own = scalbn(step, Int(octaves))
    return (min(max(own, .leastNormalMagnitude), Self.coarsestStep), rowClass - 4 * octaves)
  }

  /// An element of a mean row as the receiver will see it: that of codec_entropy.h without a shrinkage.
  func coded(mean: Float) -> Float {
    let steps = mean.magnitude * (1 / meanStep) + 0.5
    return steps < 0x1p24 ? Float(sign: mean.sign, exponent: 0, significand: steps.rounded(.down) * meanStep) : mean
  }

  /// The class of a row's weight: the lightest of all for what is no number.
  static func weightClass(_ weight: Float, heaviest: Float) -> Int32 {
    let octaves = log2(heaviest / weight.magnitude)
    if octaves <= 0 { return 0 }
    return octaves < Float(lastWeight) / 2 ? Int32((2 * octaves).rounded()) : lastWeight
  }

  /// What a row of a class of weight counts, against the heaviest: 2^(−class / 2).
  static func weight(ofClass weightClass: Int32) -> Float {
    scalbn(weightClass & 1 == 0 ? 1 : Float(0.5).squareRoot(), -Int(weightClass >> 1))
  }

  /// How an element's context follows from the classes of its column and, to be set, its row.
  var scaleOfContexts: xp_entropy_scale {
    xp_entropy_scale(offset: 0, last: Self.lastClass, shift: Int32(shift), first: Int32(Self.elements))
  }

  /// A label's number as the integer that is coded, and back (zigzag): labels of about the same frequency get integers of the
  /// same magnitude, whose two signs share a frequency.
  static func integer(_ number: Int32) -> Int32 { number & 1 == 0 ? number / 2 : -(number / 2) - 1 }
  static func number(_ integer: Int32) -> Int32 { integer < 0 ? -2 &* (integer &+ 1) &+ 1 : 2 &* integer }

  /// Upper bound of the bytes of a body.
  static func maximumBytes(rows: Int, groups: Int, hidden: Int, weighted: Bool) -> Int {
    guard rows > 0 else { return 0 }
    let integers = rows * (hidden + (weighted ? 3 : 2)) + min(rows, groups) * hidden + hidden
    // 11 bits of token and the 32 of a float.
    return fixedBytes + finalBytes + contextCapacity * (3 + 2 * EntropyTable.entries) + integers * 43 / 8 + 48
  }
}

extension EntropyBody {
  /// Reads the fixed part of a body.
  init(reading body: UnsafeRawBufferPointer, weighted: Bool) throws(CrosspointError) {
    let least = Self.fixedBytes + Self.finalBytes
    guard body.count >= least, let base = body.baseAddress else {
      throw .corrupt("body bytes", "\(body.count); an entropy-coded body takes \(least) at least")
    }
    step = Float(bitPattern: base.get(at: 0))
    meanStep = Float(bitPattern: base.get(at: 4))
    shift = base.get(at: 8)
    self.weighted = weighted
    let contexts: UInt8 = base.get(at: 9)
    let reserved: UInt16 = base.get(at: 10)
    guard step.isNormal, step > 0, meanStep.isNormal, meanStep > 0, shift <= Self.coarsest,
      Int(contexts) == self.contexts, reserved == 0
    else {
      throw .corrupt(
        "body", "steps \(step), \(meanStep), classes shifted by \(shift), \(contexts) contexts, \(reserved)")
    }
  }
}
