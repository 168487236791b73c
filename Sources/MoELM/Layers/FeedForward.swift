/// `y = gelu(x U) D`: one expert, or several for the same rows.
struct FeedForward {
  private let up: Parameter
  private let down: Parameter

  static func parameters(_ name: String, _ shape: ModelShape, experts: Int = 1) -> [ParameterSpecification] {
    parameters(name, width: shape.width, hidden: experts * shape.expertWidth) { .residual($0, shape) }
  }

  /// A routed expert.
  static func routedParameters(_ name: String, _ shape: ModelShape) -> [ParameterSpecification] {
    parameters(name, width: shape.routedWidth, hidden: shape.expertWidth) {
      // Behind a projection it is the projection's outputs that are added to the residual stream.
      shape.latent == nil ? .residual($0, shape) : .fanIn($0)
    }
  }

  private static func parameters(
    _ name: String, width: Int, hidden: Int, _ downStart: (_ inputs: Int) -> ParameterSpecification.Start
  ) -> [ParameterSpecification] {
    [
      ParameterSpecification(name: name + ".up", rows: width, columns: hidden, start: .fanIn(width)),
      ParameterSpecification(name: name + ".down", rows: hidden, columns: width, start: downStart(hidden)),
    ]
  }

  init(_ name: String, in set: ParameterSet) {
    up = set[name + ".up"]
    down = set[name + ".down"]
  }

  var hidden: Int { up.value.columns }

  /// Keeps `hidden` (before GELU) and `active` (after it) for the backward pass, both `[rows × hidden]`.
  func forward(_ x: Matrix, hidden: Matrix, active: Matrix, into y: Matrix, accumulate: Bool) {
    multiply(x, up.value, into: hidden)
    gelu(hidden, into: active)
    multiply(active, down.value, into: y, accumulate: accumulate)
  }

  /// Overwrites `hidden` and `active`, fills dx, and adds to the gradients of the weights.
  func backward(_ x: Matrix, hidden: Matrix, active: Matrix, dy: Matrix, into dx: Matrix) {
    multiply(active.transposed, dy, into: down.gradient, accumulate: true)
    differentiateRows(hidden: hidden, activeGradient: active, dy: dy, into: dx)
    multiply(x.transposed, hidden, into: up.gradient, accumulate: true)
  }

  /// The first half of ``backward(_:hidden:active:dy:into:)``: fills dx and `activeGradient`, and turns `hidden` into its
  /// gradient.
  func differentiateRows(hidden: Matrix, activeGradient: Matrix, dy: Matrix, into dx: Matrix) {
    multiply(dy, down.value.transposed, into: activeGradient)
    geluBackward(hidden, activeGradient, into: hidden)
    multiply(hidden, up.value.transposed, into: dx)
  }

  /// The second half, for which nobody waits: adds to the gradients of the weights.
  func differentiateWeights(_ x: Matrix, hiddenGradient: Matrix, active: Matrix, dy: Matrix) {
    multiply(active.transposed, dy, into: down.gradient, accumulate: true)
    multiply(x.transposed, hiddenGradient, into: up.gradient, accumulate: true)
  }
}

extension ParameterSpecification.Start {
  /// Keeps the variance of activations: deviation `1/√inputs`.
  static func fanIn(_ inputs: Int) -> Self { .normal(1 / Float(inputs).squareRoot()) }

  /// For what is added to the residual stream: smaller by the root of the number of additions (Radford et al. 2019).
  static func residual(_ inputs: Int, _ shape: ModelShape) -> Self {
    .normal(1 / Float(inputs * 2 * shape.blocks).squareRoot())
  }
}
