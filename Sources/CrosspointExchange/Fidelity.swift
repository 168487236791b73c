/// Sums of squares, of what is lost and of what was to arrive.
package struct Fidelity {
  package var lost = 0.0
  package var whole = 0.0

  /// ‖x̂ − x‖ / ‖x‖; 0 where there was nothing to lose.
  package var relativeError: Double { lost == 0 ? 0 : whole == 0 ? 1 : (lost / whole).squareRoot() }

  static func + (a: Self, b: Self) -> Self { Self(lost: a.lost + b.lost, whole: a.whole + b.whole) }
}
