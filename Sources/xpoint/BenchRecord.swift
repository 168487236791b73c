/// One line of a benchmark's JSON: a list of these, with these keys.
struct BenchRecord: Encodable {
  var op: String
  /// `crosspoint`, `plain`, …
  var implementation: String
  var ranks: Int
  var tokensPerRank: Int
  var hidden: Int
  var topK: Int
  var pattern: String
  /// Bytes that leave the rank which sends most, in one operation.
  var bytes: Int
  var medianSeconds: Double
  var p99Seconds: Double
  /// The rank that was last most often.
  var slowestRank: Int
}
