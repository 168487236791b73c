import CrosspointCore
import Foundation

/// What a tensor is before it has memory: its name, shape and how it begins.
struct ParameterSpecification {
  enum Start {
    case zeros, ones
    /// Normal with this standard deviation.
    case normal(Float)
    case values([Float])
  }

  let name: String
  let rows: Int
  let columns: Int
  let start: Start
  /// What the learning rate is multiplied by.
  var rate: Float = 1
  var count: Int { rows * columns }
  /// Weight decay applies to matrices, not to gains, biases and compensation.
  var decays: Bool { if case .normal = start { true } else { false } }
}

/// A tensor and its gradient.
struct Parameter {
  let value: Matrix
  let gradient: Matrix
}

/// Tensors in one piece of memory, so that one all-reduce takes all gradients and one write all values and moments.
///
/// What a tensor begins with depends on the seed and its name alone, so it does not matter which rank holds it.
final class ParameterSet {
  let specifications: [ParameterSpecification]
  /// Where each tensor lies within ``values`` and the other arrays.
  let ranges: [String: Range<Int>]
  /// Number of floats of all tensors.
  let count: Int

  /// Values, then AdamW's first and second moments: what a checkpoint holds.
  private let state: FloatBuffer
  private let gradientStorage: FloatBuffer

  /// - Throws: `outOfMemory`.
  init(_ specifications: [ParameterSpecification], seed: UInt64) throws(CrosspointError) {
    self.specifications = specifications
    var ranges: [String: Range<Int>] = [:]
    var start = 0
    for specification in specifications {
      ranges[specification.name] = start..<start + specification.count
      start += specification.count
    }
    precondition(ranges.count == specifications.count, "two tensors of one name")
    self.ranges = ranges
    count = start
    state = try FloatBuffer(3 * count)
    gradientStorage = try FloatBuffer(count)
    for specification in specifications { begin(specification, seed: seed) }
  }

  var values: UnsafeMutablePointer<Float> { state.base }
  var firstMoments: UnsafeMutablePointer<Float> { state.base + count }
  var secondMoments: UnsafeMutablePointer<Float> { state.base + 2 * count }
  /// Values and moments.
  var all: UnsafeMutableBufferPointer<Float> { state.storage }
  var gradients: UnsafeMutableBufferPointer<Float> { gradientStorage.storage }

  subscript(name: String) -> Parameter {
    guard let index = specifications.firstIndex(where: { $0.name == name }), let range = ranges[name] else {
      preconditionFailure("no tensor is called \(name)")
    }
    let specification = specifications[index]
    let (rows, columns) = (specification.rows, specification.columns)
    return Parameter(
      value: Matrix(values + range.lowerBound, rows, columns),
      gradient: Matrix(gradientStorage.base + range.lowerBound, rows, columns))
  }

  func zeroGradients() { gradients.update(repeating: 0) }

  private func begin(_ specification: ParameterSpecification, seed: UInt64) {
    let tensor = self[specification.name].value
    switch specification.start {
    case .zeros: break
    case .ones: for i in 0..<tensor.count { tensor.base[i] = 1 }
    case .values(let values): _ = tensor.floats.update(fromContentsOf: values)
    case .normal(let deviation):
      var generator = SplitMix64(seed: fnv1a(specification.name.utf8, seed: seed))
      for i in 0..<tensor.count { tensor.base[i] = deviation * generator.nextNormal() }
    }
  }
}

extension SplitMix64 {
  /// A normal float of mean 0 and variance 1 (Box and Muller 1958).
  mutating func nextNormal() -> Float {
    let (radius, angle) = (1 - nextUnit(), nextUnit())
    return Float((-2 * log(Double(radius))).squareRoot() * cos(2 * Double.pi * Double(angle)))
  }
}
