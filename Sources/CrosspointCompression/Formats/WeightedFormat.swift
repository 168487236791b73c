/// Entropy-coded rows whose errors count as much as the rows weigh: a row of half the weight has twice the step. The body says
/// the weights in classes of half an octave.
struct WeightedFormat: EntropyCodedFormat {
  static let name = "weighted"
  static let number: UInt16 = 12
  static let members = [WeightedFormat(rate: 2)]
  let rate: Double

  var weighsRows: Bool { true }
}
