import CrosspointCore

/// Multi-head self-attention with rotary positions; causal under the causal objective.
///
/// Tokens are sequences of `context` rows, one after the other. Vaswani et al., arXiv 1706.03762, section 3.2, with the
/// positions of ``Rotation``. A bias per key may be added to the scores of every head and query, and the softmax may
/// leave a part of its mass on nothing (``ModelShape/softmax1``).
final class Attention {
  private let shape: Sizes
  private let project: Parameter
  private let output: Parameter
  private let rotation: Rotation
  /// Queries, keys and values side by side `[T × 3d]`; weights `[sequences · heads · C × C]`; heads' results `[T × d]`.
  private let projected = FloatBuffer()
  private let weights = FloatBuffer()
  private let mixed = FloatBuffer()
  private let dProjected = FloatBuffer()
  private let dWeights = FloatBuffer()
  private let dMixed = FloatBuffer()

  static func parameters(_ name: String, _ shape: ModelShape) -> [ParameterSpecification] {
    [
      ParameterSpecification(
        name: name + ".project", rows: shape.width, columns: 3 * shape.width, start: .fanIn(shape.width)),
      ParameterSpecification(
        name: name + ".output", rows: shape.width, columns: shape.width, start: .residual(shape.width, shape)),
    ]
  }

  init(_ name: String, _ shape: ModelShape, in set: ParameterSet) {
    self.shape = Sizes(shape)
    project = set[name + ".project"]
    output = set[name + ".output"]
    rotation = Rotation(positions: shape.context, width: shape.headWidth)
  }

  /// - Parameter keyBias: `[T]`, added to every score of that key.
  func forward(_ x: Matrix, keyBias: UnsafePointer<Float>? = nil, addingTo y: Matrix) throws(CrosspointError) {
    let projected = try projected.matrix(x.rows, 3 * shape.width)
    let mixed = try mixed.matrix(x.rows, shape.width)
    multiply(x, project.value, into: projected)
    rotate(projected, backwards: false)
    let allWeights = try allWeights(x.rows)
    forEachHead(x.rows) { head in
      let weights = head.weights(allWeights)
      multiply(head.query(projected), head.key(projected).transposed, into: weights, scale: scale)
      let bias = keyBias.map { $0 + head.rows.lowerBound }
      for row in 0..<weights.rows {
        let seen = shape.isCausal ? row + 1 : weights.columns
        if let bias { map(weights.row(row), bias, into: weights.row(row), count: seen) { $0 + $1 } }
        softmax(weights.row(row), count: seen, withNothing: shape.softmax1)
        (weights.row(row) + seen).update(repeating: 0, count: weights.columns - seen)
      }
      multiply(weights, head.value(projected), into: head.part(mixed))
    }
    multiply(mixed, output.value, into: y, accumulate: true)
  }

  /// - Parameter keyBiasGradients: `[T]`, to which the gradient of the bias is added.
  func backward(
    _ x: Matrix, dy: Matrix, into dx: Matrix, addingTo keyBiasGradients: UnsafeMutablePointer<Float>? = nil
  ) throws(CrosspointError) {
    let projected = try projected.matrix(x.rows, 3 * shape.width)
    let mixed = try mixed.matrix(x.rows, shape.width)
    let dProjected = try dProjected.matrix(x.rows, 3 * shape.width)
    let dMixed = try dMixed.matrix(x.rows, shape.width)
    let dWeights = try dWeights.matrix(shape.context, shape.context)
    multiply(mixed.transposed, dy, into: output.gradient, accumulate: true)
    multiply(dy, output.value.transposed, into: dMixed)
    let allWeights = try allWeights(x.rows)
    forEachHead(x.rows) { head in
      let weights = head.weights(allWeights)
      multiply(head.part(dMixed), head.value(projected).transposed, into: dWeights)
      multiply(weights.transposed, head.part(dMixed), into: head.value(dProjected))
      for row in 0..<weights.rows { softmaxBackward(weights.row(row), dWeights.row(row), count: weights.columns) }
      if let keyBiasGradients {
        let slope = keyBiasGradients + head.rows.lowerBound
        for row in 0..<dWeights.rows { map(slope, dWeights.row(row), into: slope, count: dWeights.columns) { $0 + $1 } }
      }
      multiply(dWeights, head.key(projected), into: head.query(dProjected), scale: scale)
      multiply(dWeights.transposed, head.query(projected), into: head.key(dProjected), scale: scale)
    }
    rotate(dProjected, backwards: true)
    multiply(x.transposed, dProjected, into: project.gradient, accumulate: true)
    multiply(dProjected, project.value.transposed, into: dx)
  }

  private var scale: Float { 1 / Float(shape.headWidth).squareRoot() }

  private func allWeights(_ tokens: Int) throws(CrosspointError) -> Matrix {
    try weights.matrix(tokens * shape.heads, shape.context)
  }

  /// Turns queries and keys by their position.
  private func rotate(_ projected: Matrix, backwards: Bool) {
    for row in 0..<projected.rows {
      for head in 0..<2 * shape.heads {  // queries and keys lie side by side
        rotation.apply(
          projected.row(row) + head * shape.headWidth, position: row % shape.context, backwards: backwards)
      }
    }
  }

  private func forEachHead(_ tokens: Int, _ body: (Head) -> Void) {
    for sequence in 0..<tokens / shape.context {
      for head in 0..<shape.heads { body(Head(shape: shape, sequence: sequence, head: head)) }
    }
  }
}

/// What heads ask for in their loops: numbers alone, since an option is a property wrapper, which takes longer to read.
private struct Sizes {
  let (context, width, heads, headWidth): (Int, Int, Int, Int)
  let (isCausal, softmax1): (Bool, Bool)

  init(_ shape: ModelShape) {
    (context, width, heads, headWidth) = (shape.context, shape.width, shape.heads, shape.headWidth)
    (isCausal, softmax1) = (shape.objective == .causal, shape.softmax1)
  }
}

/// One head of one sequence: which rectangle of each matrix is its own.
private struct Head {
  let shape: Sizes
  let sequence: Int
  let head: Int

  var rows: Range<Int> { sequence * shape.context..<(sequence + 1) * shape.context }

  func part(_ matrix: Matrix, offset: Int = 0) -> Matrix {
    let start = offset + head * shape.headWidth
    return matrix[rows, start..<start + shape.headWidth]
  }

  func query(_ projected: Matrix) -> Matrix { part(projected) }
  func key(_ projected: Matrix) -> Matrix { part(projected, offset: shape.width) }
  func value(_ projected: Matrix) -> Matrix { part(projected, offset: 2 * shape.width) }

  func weights(_ all: Matrix) -> Matrix {
    let start = (sequence * shape.heads + head) * shape.context
    return all[rows: start..<start + shape.context]
  }
}

/// Softmax of a row, in place; with nothing as one more choice of score 0, `p = eˢ / (1 + Σ eˢ)`.
func softmax(_ row: UnsafeMutablePointer<Float>, count: Int, withNothing: Bool = false) {
  // Scores all far below 0 must not be lifted to 1: the shift is at least the score of nothing.
  let largest = withNothing ? max(0, maximum(row, count: count)) : maximum(row, count: count)
  map(row, into: row, count: count) { exponential($0 - largest) }
  let nothing = withNothing ? exponential(Lanes(repeating: -largest))[0] : 0
  let scale = 1 / (nothing + sum(row, row, count: count) { x, _ in x })
  map(row, into: row, count: count) { $0 * scale }
}

/// `dx = p (dp − Σ p dp)`, over dp; nothing has a value of 0 and so no part in the sum.
private func softmaxBackward(_ p: UnsafePointer<Float>, _ dp: UnsafeMutablePointer<Float>, count: Int) {
  let along = sum(p, dp, count: count) { $0 * $1 }
  map(p, dp, into: dp, count: count) { $0 * ($1 - along) }
}
