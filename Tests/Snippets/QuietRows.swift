// snippet: stage
import Crosspoint

/// Leaves out tokens whose largest component is below a floor.
final class QuietRows: TokenStage {
  let name = "quiet"
  let isCausal = true  // a token's fate depends on that token alone
  let floor: Float
  private var selection = RowSelection()

  init(floor: Float) { self.floor = floor }

  func reduce(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext
  ) throws(CrosspointError) -> TokenRows {
    let (x, width) = (tokens.base, tokens.hidden)
    selection.choose(of: layout) { row, _, _ in
      (0..<width).contains { abs(x[row * width + $0]) >= floor }
    }
    return try selection.select(tokens)
  }

  func expand(_ outputs: consuming TokenBatch) throws(CrosspointError) -> TokenBatch {
    try selection.scatter(outputs)
  }

  func expandBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try selection.gather(dy)
  }

  func reduceBackward(
    _ dRows: borrowing TokenBatch, tokens: borrowing TokenBatch, auxiliaryScale: Float
  ) throws(CrosspointError) -> TokenBatch {
    try selection.scatter(dRows)
  }
}
// end
