import CrosspointCore
import CrosspointTokens

/// The map A of every expert, its parameters and their gradients: `y = E(c) + A (x − c)`, all at the source.
///
/// Parameters of expert e are ``parameters``[e · p ..< (e + 1) · p]: nothing for `none` and `identity`;
/// for `lowRank(R)` the rows of Uᵀ and then of Vᵀ, `[R × hidden]` each, of `A = 1 + U Vᵀ`.
public struct Compensator: Sendable {
  package let kind: ResidualCompensation
  /// Learned numbers of all experts; the same on every rank. A programmer's mistake to make them, or their gradients, fewer.
  public var parameters: [Float]
  /// ∂L/∂``parameters``, added to by each backward pass.
  public var gradients: [Float]
  private let hidden: Int
  private let perExpert: Int

  /// - Throws: `invalidArgument` for `experts` outside 1…2²⁰, `hidden` outside 1…2²⁴, a rank outside `1 ... hidden`, or more
  ///   than 2³¹ parameters; `outOfMemory`.
  package init(kind: ResidualCompensation, experts: Int, hidden: Int, seed: UInt64) throws(CrosspointError) {
    try Extent.require(experts, in: Extent.experts, operation: "Compensator", argument: "experts")
    try Extent.require(hidden, in: Extent.hidden, operation: "Compensator", argument: "hidden")
    if case .lowRank(let rank) = kind, !(1...hidden).contains(rank) {
      throw CrosspointError(
        .invalidArgument, operation: "Compensator", argument: "rank", "\(rank) is not in 1…\(hidden), the hidden size")
    }
    self.kind = kind
    self.hidden = hidden
    perExpert = Self.parametersPerExpert(kind, hidden: hidden)
    let count = try Extent.product(experts, perExpert, most: 1 << 31, operation: "Compensator", argument: "parameters")
    try requireMemory(bytes: 8 * count, operation: "Compensator", argument: "parameters")
    parameters = Self.initialParameters(kind, experts: experts, hidden: hidden, seed: seed)
    gradients = Array(repeating: 0, count: parameters.count)
  }

  /// What learning starts from, the same on every rank: U = 0 and a small random V, which is the identity.
  package static func initialParameters(
    _ kind: ResidualCompensation, experts: Int, hidden: Int, seed: UInt64
  ) -> [Float] {
    let perExpert = parametersPerExpert(kind, hidden: hidden)
    var values = [Float](repeating: 1, count: experts * perExpert)
    guard case .lowRank = kind else { return values }
    var generator = SplitMix64(seed: seed ^ 0x4C6F_7752_616E_6B)
    let bound = (3 / Float(hidden)).squareRoot()
    for index in values.indices {
      values[index] = index % perExpert < perExpert / 2 ? 0 : bound * (2 * generator.nextUnit() - 1)
    }
    return values
  }

  private static func parametersPerExpert(_ kind: ResidualCompensation, hidden: Int) -> Int {
    switch kind {
    case .none, .identity: 0
    case .lowRank(let rank): 2 * rank * hidden
    }
  }

  /// Whether A is anything but 0.
  package var isActive: Bool { kind != .none }

  /// Sets all gradients to zero.
  public mutating func resetGradients() {
    for index in gradients.indices { gradients[index] = 0 }
  }

  /// `y += weight · A (x − c)`.
  package func add(
    expert: Int, weight: Float, x: UnsafePointer<Float>, c: UnsafePointer<Float>, to y: UnsafeMutablePointer<Float>
  ) {
    guard isActive else { return }
    kernels.axpy_difference(y, weight, x, c, hidden)
    forEachRank(expert) { u, v in
      kernels.axpy(y, weight * kernels.dot_difference(v, x, c, hidden), u, hidden)
    }
  }

  /// `out += weight · Aᵀ u`.
  package func addAdjoint(
    expert: Int, weight: Float, of gradient: UnsafePointer<Float>, to out: UnsafeMutablePointer<Float>
  ) {
    guard isActive else { return }
    kernels.axpy(out, weight, gradient, hidden)
    forEachRank(expert) { u, v in
      kernels.axpy(out, weight * kernels.dot(u, gradient, hidden), v, hidden)
    }
  }

  /// Adds `weight · ∂⟨dy, A (x − c)⟩ / ∂parameters` to the gradients.
  /// - Returns: `⟨dy, A (x − c)⟩`, the residual's part of ∂L/∂weight.
  package mutating func differentiate(
    expert: Int, weight: Float, dy: UnsafePointer<Float>, x: UnsafePointer<Float>, c: UnsafePointer<Float>
  ) -> Float {
    guard isActive else { return 0 }
    var total = kernels.dot_difference(dy, x, c, hidden)
    guard case .lowRank(let rank) = kind else { return total }
    let hidden = hidden
    let start = expert * perExpert
    precondition(
      min(parameters.count, gradients.count) >= start + perExpert, "fewer numbers than the compensator learns")
    gradients.withUnsafeMutableBufferPointer { gradients in
      parameters.withUnsafeBufferPointer { parameters in
        for k in 0..<rank {
          let (u, v) = (start + k * hidden, start + (rank + k) * hidden)
          let inner = kernels.dot_difference(parameters.baseAddress! + v, x, c, hidden)
          let outer = kernels.dot(parameters.baseAddress! + u, dy, hidden)
          total += inner * outer
          kernels.axpy(gradients.baseAddress! + u, weight * inner, dy, hidden)
          kernels.axpy_difference(gradients.baseAddress! + v, weight * outer, x, c, hidden)
        }
      }
    }
    return total
  }

  /// The columns of U and V, pair by pair; none but for `lowRank`.
  private func forEachRank(_ expert: Int, _ body: (UnsafePointer<Float>, UnsafePointer<Float>) -> Void) {
    guard case .lowRank(let rank) = kind else { return }
    precondition(parameters.count >= (expert + 1) * perExpert, "fewer numbers than the compensator learns")
    parameters.withUnsafeBufferPointer { parameters in
      let start = parameters.baseAddress! + expert * perExpert
      for k in 0..<rank { body(start + k * hidden, start + (rank + k) * hidden) }
    }
  }
}
