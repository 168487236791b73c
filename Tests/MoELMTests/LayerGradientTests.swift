import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

/// Every layer alone: the gradient of `Σ r · layer(x)` by x and by each tensor, against central differences.
@Suite struct LayerGradientTests {
  let shape = tinyOptions().shape
  let rows = 16

  /// Compares what `backward` gives with differences of `forward`; both work on a [rows × width] matrix.
  private func check(
    _ specifications: [ParameterSpecification], inputs: Int, outputs: Int, rows: Int,
    _ make: (ParameterSet) -> (
      forward: (Matrix, Matrix) throws -> Void, backward: (Matrix, Matrix, Matrix) throws -> Void
    )
  ) throws {
    let set = try ParameterSet(specifications, seed: 3)
    let layer = make(set)
    let (x, y, dy, dx) = try (
      FloatBuffer(rows * inputs), FloatBuffer(rows * outputs), FloatBuffer(rows * outputs), FloatBuffer(rows * inputs)
    )
    _ = x.storage.update(fromContentsOf: randomFloats(rows * inputs, seed: 1))
    let probe = randomFloats(rows * outputs, seed: 2)
    func loss() throws -> Double {
      y.storage.update(repeating: 0)
      try layer.forward(x.matrix(rows, inputs), y.matrix(rows, outputs))
      return zip(y.storage, probe).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    }
    _ = try loss()
    _ = dy.storage.update(fromContentsOf: probe)
    try layer.backward(x.matrix(rows, inputs), dy.matrix(rows, outputs), dx.matrix(rows, inputs))
    let byInput = try x.storage.indices.map { try centralDifference(of: x.base + $0, step: 2e-2, loss: loss) }
    #expect(relativeError(dx.storage.map(Double.init), byInput) < 1e-3, "by the input")
    for specification in specifications {
      let tensor = set[specification.name]
      let differences = try tensor.value.floats.indices.map {
        try centralDifference(of: tensor.value.base + $0, step: 2e-2, loss: loss)
      }
      #expect(
        relativeError(tensor.gradient.floats.map(Double.init), differences) < 1e-3, "by \(specification.name)")
    }
  }

  @Test func layerNorm() throws {
    let width = shape.width
    try check(LayerNorm.parameters("n", width: width), inputs: width, outputs: width, rows: 5) { set in
      let layer = LayerNorm("n", width: width, in: set)
      return (
        { x, y in try layer.forward(x, into: y) },
        { _, dy, dx in try layer.backward(dy, addingTo: dx) }
      )
    }
  }

  @Test(arguments: Objective.allCases, [false, true]) func attention(objective: Objective, softmax1: Bool) throws {
    var shape = shape
    shape.objective = objective
    shape.softmax1 = softmax1
    try check(Attention.parameters("a", shape), inputs: shape.width, outputs: shape.width, rows: 2 * shape.context) {
      [shape] set in
      let layer = Attention("a", shape, in: set)
      return ({ x, y in try layer.forward(x, addingTo: y) }, { x, dy, dx in try layer.backward(x, dy: dy, into: dx) })
    }
  }

  @Test(arguments: Objective.allCases, [false, true])
  func keyBiasHasItsGradient(objective: Objective, softmax1: Bool) throws {
    var shape = shape
    shape.objective = objective
    shape.softmax1 = softmax1
    let set = try ParameterSet(Attention.parameters("a", shape), seed: 3)
    defer { withExtendedLifetime(set) {} }
    let layer = Attention("a", shape, in: set)
    let rows = 2 * shape.context
    let count = rows * shape.width
    let (x, y, dy, dx) = try (FloatBuffer(count), FloatBuffer(count), FloatBuffer(count), FloatBuffer(count))
    _ = x.storage.update(fromContentsOf: randomFloats(count, seed: 1))
    let probe = randomFloats(count, seed: 2)
    _ = dy.storage.update(fromContentsOf: probe)
    let (bias, slope) = try (FloatBuffer(rows), FloatBuffer(rows))
    _ = bias.storage.update(fromContentsOf: randomFloats(rows, seed: 6))
    func loss() throws -> Double {
      y.storage.update(repeating: 0)
      try layer.forward(x.matrix(rows, shape.width), keyBias: bias.base, addingTo: y.matrix(rows, shape.width))
      return zip(y.storage, probe).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    }
    _ = try loss()
    try layer.backward(
      x.matrix(rows, shape.width), dy: dy.matrix(rows, shape.width), into: dx.matrix(rows, shape.width),
      addingTo: slope.base)
    let differences = try bias.storage.indices.map { try centralDifference(of: bias.base + $0, step: 2e-2, loss: loss) }
    #expect(relativeError(slope.storage.map(Double.init), differences) < 1e-3)
    let byInput = try x.storage.indices.map { try centralDifference(of: x.base + $0, step: 2e-2, loss: loss) }
    #expect(relativeError(dx.storage.map(Double.init), byInput) < 1e-3, "the input's, too")
  }

  @Test func aMassOnNothingIsSafeForLargeScores() {
    for scores in [[-200, -300], [200, 100], [-1, 1], [0, 0]] as [[Float]] {
      var row = scores
      softmax(&row, count: 2, withNothing: true)
      let exact = scores.map { score in
        1 / (scores.reduce(exp(-Double(score))) { $0 + exp(Double($1) - Double(score)) })
      }
      #expect(zip(row, exact).allSatisfy { abs(Double($0) - $1) < 1e-6 }, "\(scores): \(row), \(exact)")
    }
  }

  @Test func feedForward() throws {
    let (width, hidden) = (shape.width, shape.expertWidth)
    try check(FeedForward.parameters("f", shape), inputs: width, outputs: width, rows: 5) { set in
      let layer = FeedForward("f", in: set)
      let (before, after) = (FloatBuffer(), FloatBuffer())
      return (
        { x, y in
          try layer.forward(
            x, hidden: before.matrix(x.rows, hidden), active: after.matrix(x.rows, hidden), into: y, accumulate: false)
        },
        { x, dy, dx in
          try layer.backward(
            x, hidden: before.matrix(x.rows, hidden), active: after.matrix(x.rows, hidden), dy: dy, into: dx)
        }
      )
    }
  }

  @Test(arguments: [[], [true, true, false]])
  func prediction(masked: [Bool]) throws {
    let rows = masked.isEmpty ? 2 : 3  // the third is not masked and has no part in the loss
    let batch = Batch(inputs: [0, 0, 0].suffix(rows), targets: [255, 7, 9].dropLast(3 - rows), masked: masked)
    try check(Prediction.parameters("p", shape), inputs: shape.width, outputs: 1, rows: rows) { set in
      let layer = Prediction("p", in: set)
      // A loss instead of rows: it goes to the first output, whose probe scales it, less what it is about.
      let scale = randomFloats(rows, seed: 2)[0]
      return (
        { x, y in y.base[0] = try Float(layer.forward(x, batch) - 2 * 5.545) },
        { x, _, dx in try layer.backward(x, batch, scale: scale, into: dx) }
      )
    }
  }

  @Test func attentionLooksBackOnly() throws {
    let set = try ParameterSet(Attention.parameters("a", shape), seed: 4)
    let layer = Attention("a", shape, in: set)
    let (x, y) = try (FloatBuffer(8 * shape.width), FloatBuffer(8 * shape.width))
    _ = x.storage.update(fromContentsOf: randomFloats(8 * shape.width, seed: 5))
    try layer.forward(x.matrix(8, shape.width), addingTo: y.matrix(8, shape.width))
    let before = Array(y.storage)
    for i in 5 * shape.width..<8 * shape.width { x.base[i] += 1 }
    y.storage.update(repeating: 0)
    try layer.forward(x.matrix(8, shape.width), addingTo: y.matrix(8, shape.width))
    #expect(firstBitDifference(Array(y.storage), before) == 5 * shape.width)
  }
}
