/// One row per byte value.
struct Embedding {
  private let table: Parameter

  static func parameters(_ name: String, _ shape: ModelShape) -> [ParameterSpecification] {
    [ParameterSpecification(name: name, rows: ModelShape.vocabulary, columns: shape.width, start: .normal(0.5))]
  }

  init(_ name: String, in set: ParameterSet) { table = set[name] }

  func forward(_ bytes: UnsafeBufferPointer<UInt8>, into x: Matrix) {
    for (row, byte) in bytes.enumerated() {
      x.row(row).update(from: table.value.row(Int(byte)), count: x.columns)
    }
  }

  func backward(_ bytes: UnsafeBufferPointer<UInt8>, _ dx: Matrix) {
    for (row, byte) in bytes.enumerated() {
      let gradient = table.gradient.row(Int(byte))
      map(gradient, dx.row(row), into: gradient, count: dx.columns) { $0 + $1 }
    }
  }
}
