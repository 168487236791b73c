import CrosspointCore
import CrosspointTokens

/// A stage whose rows stand for several tokens each: it forms ``groups`` in `reduce`, and the rest follows.
package protocol GroupingStage: TokenStage {
  /// Those of the last batch.
  var groups: RowGroups { get }
}

extension GroupingStage {
  /// `[T]`: the row that each token of the last batch is part of; −1 for padding.
  package var rowOfToken: [Int32] { groups.rowOf }

  public func expand(_ outputs: consuming TokenBatch) throws(CrosspointError) -> TokenBatch {
    try groups.expand(outputs)
  }

  public func expandBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try groups.expandBackward(dy)
  }

  public func reduceBackward(
    _ dRows: borrowing TokenBatch, tokens: borrowing TokenBatch, auxiliaryScale: Float
  ) throws(CrosspointError) -> TokenBatch {
    try groups.reduceBackward(dRows)
  }
}
