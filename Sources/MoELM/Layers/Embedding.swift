/// One row per byte value, and one for the mask symbol under the masked objective.
struct Embedding {
  private let table: Parameter

  static func parameters(_ name: String, _ shape: ModelShape) -> [ParameterSpecification] {
    [ParameterSpecification(name: name, rows: shape.symbols, columns: shape.width, start: .normal(0.5))]
  }

  init(_ name: String, in set: ParameterSet) { table = set[name] }

  func forward(_ batch: Batch, into x: Matrix) {
    for row in 0..<batch.rows { x.row(row).update(from: table.value.row(batch.symbol(row)), count: x.columns) }
  }

  func backward(_ batch: Batch, _ dx: Matrix) {
    for row in 0..<batch.rows {
      let gradient = table.gradient.row(batch.symbol(row))
      map(gradient, dx.row(row), into: gradient, count: dx.columns) { $0 + $1 }
    }
  }
}
