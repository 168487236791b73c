import CrosspointCore
import CrosspointTokens

/// What the rows of a batch stand for: which sequence each belongs to and how many tokens it speaks for.
public struct RowLayout: Sendable, Hashable {
  /// Rows of each sequence, in the order of the batch; a sequence may have lost all of them.
  public internal(set) var rowsPerSequence: [Int]
  /// Tokens of each sequence before any stage, padding included.
  public internal(set) var tokensPerSequence: [Int]
  /// `[R]`: tokens that each row stands for, 1 before any stage; 0 marks padding. A router weighs its load by it. Later
  /// tokens may be among them: what a causal stage sends may depend on whether this is 0, and on no more of it.
  public internal(set) var tokensPerRow: [Int32]

  /// Number of rows.
  public var rows: Int { tokensPerRow.count }

  /// Tokens of a batch, which a rank routes at once.
  private static let mostTokens = Int(Int32.max)

  /// Sequences of one length, without padding, as a program makes them of batches that it has.
  /// - Precondition: neither is negative, and there are at most 2³¹ − 1 sequences and tokens.
  public init(sequences: Int, length: Int) {
    let (tokens, overflow) = sequences.multipliedReportingOverflow(by: length)
    precondition(
      sequences >= 0 && length >= 0 && !overflow && max(sequences, tokens) <= Self.mostTokens,
      "\(sequences) sequences of \(length) tokens")
    rowsPerSequence = Array(repeating: length, count: sequences)
    tokensPerSequence = rowsPerSequence
    tokensPerRow = Array(repeating: 1, count: tokens)
  }

  /// Sequences of any lengths.
  /// - Parameter isPadding: one per token, in the order of the batch; `nil`: no padding.
  /// - Throws: `invalidArgument` for a negative length, more than 2³¹ − 1 tokens, or another number of marks than tokens;
  ///   `outOfMemory`.
  public init(tokensPerSequence: [Int], isPadding: [Bool]? = nil) throws(CrosspointError) {
    func invalid(_ argument: String, _ message: String) -> CrosspointError {
      CrosspointError(.invalidArgument, operation: "RowLayout", argument: argument, message)
    }
    var tokens = 0
    for (sequence, length) in tokensPerSequence.enumerated() {
      guard length >= 0 else { throw invalid("tokensPerSequence", "sequence \(sequence) has \(length) tokens") }
      guard length <= Self.mostTokens - tokens else {
        throw invalid(
          "tokensPerSequence", "sequence \(sequence) has \(length) tokens; at most \(Self.mostTokens) in all")
      }
      tokens += length
    }
    try requireMemory(bytes: 4 * tokens, operation: "RowLayout", argument: "tokensPerSequence")
    if let isPadding, isPadding.count != tokens {
      throw invalid("isPadding", "\(isPadding.count) marks for \(tokens) tokens")
    }
    rowsPerSequence = tokensPerSequence
    self.tokensPerSequence = tokensPerSequence
    tokensPerRow = isPadding?.map { $0 ? 0 : 1 } ?? Array(repeating: 1, count: tokens)
  }
}

extension RowLayout {
  /// Becomes that of the rows which a stage makes of others, as yet none; memory is kept.
  mutating func begin(from input: RowLayout) {
    if tokensPerSequence != input.tokensPerSequence { tokensPerSequence = input.tokensPerSequence }
    rowsPerSequence.removeAll(keepingCapacity: true)
    for _ in input.rowsPerSequence { rowsPerSequence.append(0) }
    tokensPerRow.removeAll(keepingCapacity: true)
  }

  /// One more row of a sequence, the last so far.
  mutating func append(sequence: Int, tokens: Int32) {
    rowsPerSequence[sequence] += 1
    tokensPerRow.append(tokens)
  }
}

/// Rows of activations together with what they stand for. Move-only, like the batch in it.
public struct TokenRows: ~Copyable {
  /// `[R × d]`.
  public let tokens: TokenBatch
  public let layout: RowLayout

  /// - Throws: `invalidArgument` if the layout is of another number of rows.
  public init(tokens: consuming TokenBatch, layout: RowLayout) throws(CrosspointError) {
    guard tokens.rows == layout.rows else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenRows", argument: "layout",
        "it describes \(layout.rows) rows, the batch has \(tokens.rows)")
    }
    self.tokens = tokens
    self.layout = layout
  }
}
