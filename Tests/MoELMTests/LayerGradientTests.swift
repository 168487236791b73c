import CrosspointTestSupport
import Testing

@testable import MoELM

/// Every layer alone: the gradient of `Σ r · layer(x)` by x and by each tensor, against central differences.
@Suite struct LayerGradientTests {
  let shape = tinyOptions().shape
  let rows = 16

  /// Compares what `backward` gives with differences of `forward`; both work on a [rows × width] matrix.
  private func check(
    _ specifications: [ParameterSpecification], inputs: Int, outputs: Int, rows: Int,
    _ make: (ParameterSet) -> (forward: (Matrix, Matrix) -> Void, backward: (Matrix, Matrix, Matrix) -> Void)
  ) {
    let set = ParameterSet(specifications, seed: 3)
    let layer = make(set)
    let (x, y, dy, dx) = (
      FloatBuffer(rows * inputs), FloatBuffer(rows * outputs), FloatBuffer(rows * outputs), FloatBuffer(rows * inputs)
    )
    _ = x.storage.update(fromContentsOf: randomFloats(rows * inputs, seed: 1))
    let probe = randomFloats(rows * outputs, seed: 2)
    func loss() -> Double {
      y.storage.update(repeating: 0)
      layer.forward(x.matrix(rows, inputs), y.matrix(rows, outputs))
      return zip(y.storage, probe).reduce(0) { $0 + Double($1.0) * Double($1.1) }
    }
    _ = loss()
    _ = dy.storage.update(fromContentsOf: probe)
    layer.backward(x.matrix(rows, inputs), dy.matrix(rows, outputs), dx.matrix(rows, inputs))
    let byInput = x.storage.indices.map { centralDifference(of: x.base + $0, step: 2e-2, loss: loss) }
    #expect(relativeError(dx.storage.map(Double.init), byInput) < 1e-3, "by the input")
    for specification in specifications {
      let tensor = set[specification.name]
      let differences = tensor.value.floats.indices.map {
        centralDifference(of: tensor.value.base + $0, step: 2e-2, loss: loss)
      }
      #expect(
        relativeError(tensor.gradient.floats.map(Double.init), differences) < 1e-3, "by \(specification.name)")
    }
  }

  @Test func layerNorm() {
    let width = shape.width
    check(LayerNorm.parameters("n", width: width), inputs: width, outputs: width, rows: 5) { set in
      let layer = LayerNorm("n", width: width, in: set)
      return (
        { x, y in layer.forward(x, into: y) },
        { _, dy, dx in layer.backward(dy, addingTo: dx) }
      )
    }
  }

  @Test func attention() {
    let width = shape.width
    check(Attention.parameters("a", shape), inputs: width, outputs: width, rows: 2 * shape.context) { set in
      let layer = Attention("a", shape, in: set)
      return ({ x, y in layer.forward(x, addingTo: y) }, { x, dy, dx in layer.backward(x, dy: dy, into: dx) })
    }
  }

  @Test func feedForward() {
    let (width, hidden) = (shape.width, shape.expertWidth)
    check(FeedForward.parameters("f", shape), inputs: width, outputs: width, rows: 5) { set in
      let layer = FeedForward("f", in: set)
      let (before, after) = (FloatBuffer(), FloatBuffer())
      return (
        { x, y in
          layer.forward(
            x, hidden: before.matrix(x.rows, hidden), active: after.matrix(x.rows, hidden), into: y, accumulate: false)
        },
        { x, dy, dx in
          layer.backward(
            x, hidden: before.matrix(x.rows, hidden), active: after.matrix(x.rows, hidden), dy: dy, into: dx)
        }
      )
    }
  }

  @Test func prediction() {
    let targets: [UInt8] = [255, 7]
    check(Prediction.parameters("p", shape), inputs: shape.width, outputs: 1, rows: 2) { set in
      let layer = Prediction("p", in: set)
      // A loss instead of rows: it goes to the first output, whose probe scales it, less what it is about.
      let scale = randomFloats(2, seed: 2)[0]
      return (
        { x, y in y.base[0] = Float(targets.withUnsafeBufferPointer { layer.forward(x, targets: $0) } - 2 * 5.545) },
        { x, _, dx in targets.withUnsafeBufferPointer { layer.backward(x, targets: $0, scale: scale, into: dx) } }
      )
    }
  }

  @Test func attentionLooksBackOnly() {
    let set = ParameterSet(Attention.parameters("a", shape), seed: 4)
    let layer = Attention("a", shape, in: set)
    let (x, y) = (FloatBuffer(8 * shape.width), FloatBuffer(8 * shape.width))
    _ = x.storage.update(fromContentsOf: randomFloats(8 * shape.width, seed: 5))
    layer.forward(x.matrix(8, shape.width), addingTo: y.matrix(8, shape.width))
    let before = Array(y.storage)
    for i in 5 * shape.width..<8 * shape.width { x.base[i] += 1 }
    y.storage.update(repeating: 0)
    layer.forward(x.matrix(8, shape.width), addingTo: y.matrix(8, shape.width))
    #expect(firstBitDifference(Array(y.storage), before) == 5 * shape.width)
  }
}
