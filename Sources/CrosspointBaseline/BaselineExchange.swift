import Crosspoint

/// What the tools compare an exchange with: the same transfers as a careful program writes them over MPI.
///
/// Calls come in the order `dispatch → combine → combineBackward → dispatchBackward`, the last two only when training. Nothing
/// is checked: neither values, nor that ranks agree. Sums use Crosspoint's own kernels; buffers are kept from call to call.
package protocol BaselineExchange: AnyObject {
  /// Seconds by phase, summed over calls.
  var seconds: BaselineSeconds { get set }
  /// Rows of the last dispatch that are routed to each rank, and from each rank; this rank included.
  var sentRows: [Int] { get }
  var receivedRows: [Int] { get }
  /// `[local experts]`: rows of the last dispatch for each of this rank's experts.
  var rowsPerExpert: [Int] { get }
  /// `[T × K]`: ∂L/∂topkWeights of the last combineBackward; 0 where a choice was not sent.
  var topkWeightGradients: [Float] { get }

  /// Rows for this rank's experts, grouped by expert.
  func dispatch(_ tokens: borrowing TokenBatch, _ routing: Routing) throws(CrosspointError) -> TokenBatch
  /// The experts' outputs, weighted and summed for each token.
  func combine(_ output: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch
  /// ∂L/∂output of each row, grouped by expert, from ∂L/∂y of each token.
  /// - Parameter output: what `combine` was given.
  func combineBackward(
    _ outputGradient: borrowing TokenBatch, output: borrowing TokenBatch
  ) throws(CrosspointError) -> TokenBatch
  /// ∂L/∂tokens from ∂L/∂rows.
  func dispatchBackward(_ rowGradient: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch

  /// Bytes that a transfer of the last step sent to other ranks, and bytes of its rows that stayed here.
  func traffic(_ transfer: TransferKind) -> (sent: Int, kept: Int)
}

/// Where the time of a baseline goes.
package struct BaselineSeconds {
  package var pack = 0.0
  package var move = 0.0
  package var unpack = 0.0
  package var sum = 0.0

  package init() {}
}

/// The sum of each token's rows, weighted; zeros for a token without rows.
/// - Parameter rowOfSlot: the row of each (token, choice), −1 for none.
func sumRows(
  _ rows: borrowing TokenBatch, of rowOfSlot: [Int], topK: Int, into result: borrowing TokenBatch,
  weight: (_ slot: Int) -> Float
) {
  let hidden = result.hidden
  for token in 0..<result.rows {
    let sum = result.base + token * hidden
    var isFirst = true
    for slot in token * topK..<(token + 1) * topK where rowOfSlot[slot] >= 0 {
      let (weight, row) = (weight(slot), rows.base + rowOfSlot[slot] * hidden)
      if isFirst {
        kernels.scale(sum, weight, row, hidden)
      } else {
        kernels.axpy(sum, weight, row, hidden)
      }
      isFirst = false
    }
    if isFirst { sum.update(repeating: 0, count: hidden) }
  }
}
