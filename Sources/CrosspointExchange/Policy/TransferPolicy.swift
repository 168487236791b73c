import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens

/// The settings of a policy, a value among the options; their description is what the ranks compare.
package protocol PolicySettings: Sendable, CustomStringConvertible {
  /// Floats that a rank tells with an announcement at most.
  var noteCapacity: Int { get }
  /// - Throws: `invalidArgument`.
  func validate() throws(CrosspointError)
  func makePolicy(_ context: PolicyContext) throws(CrosspointError) -> any TransferPolicy
}

/// What a policy works with.
package struct PolicyContext {
  package let fabric: any Fabric
  package let codec: RowCodec
  package let pool: BufferPool
  /// The transfers that it decides about.
  package let transfers: Set<TransferKind>
  /// Bytes of an announcement, without what the policy tells.
  package let announcementBytes: Int
}

/// Chooses how the transfers of an exchange travel: asked before each, told after it what happened.
///
/// Each rank has one. They hear the same in the same order, so that they choose the same.
package protocol TransferPolicy: AnyObject {
  /// Whether it may change its choice; what it has to choose while it does not is forgotten afterwards.
  var adapts: Bool { get set }
  /// What it has learned, as a text; the same on every rank.
  var savedState: String { get }
  /// What of a ``savedState`` none can have come to; `nil` where all is well, and then it goes on from there.
  func restore(_ state: String) -> String?

  /// Called once, when the exchange is made. Collective.
  func start(_ agreement: Agreement) throws(CrosspointError)

  /// Before a transfer: what to use. Called for each, also those that it does not decide about. Collective.
  ///
  /// - Parameter failure: what has gone wrong on this rank; it then has no rows, and does not leave.
  /// - Returns: `nil` where the caller's settings hold.
  func prepare(
    _ transfer: PendingTransfer, failure: inout CrosspointError?
  ) throws(CrosspointError) -> TransferPlan?

  /// The clusters that a dispatch has made: centroids for other ranks, and the part of the tokens' energy that they leave.
  func note(clusters: Int, residualEnergy: Double)

  /// After a transfer that it has planned and on which all ranks agree: what happened.
  ///
  /// - Parameter told: what a rank has told with its announcements, behind what the transfer says itself.
  /// - Returns: the choice, with what was measured.
  func conclude(
    _ kind: TransferKind, _ outcome: TransferOutcome, told: (_ rank: Int) -> UnsafeMutableBufferPointer<Float>
  ) -> PolicyChoice
}

/// A transfer before its rows are coded, as one rank sees it.
package struct PendingTransfer {
  package let kind: TransferKind
  /// Rows that this rank's routing sends to others.
  package let pairs: Int
  /// Bytes of metadata that will travel with the rows if none of them are clustered.
  package let metadataBytes: Int
  package let rounding: RowRounding
  /// What both ends remember of the rows, and what keeping it the same takes of this rank in each step.
  package let memory: RowMemory?
  package let standingBytes: Int
  /// Forms clusters, if they are to be decided about.
  package let clusterer: TokenClusterer?
  /// By rank the groups of rows for it, before any clustering.
  package let sources: [[RowSource]]
}

/// How a transfer shall travel.
package struct TransferPlan {
  package let choice: PolicyChoice
  /// What this rank tells every other with its announcements, as many floats on every rank. The memory is the policy's.
  package let note: UnsafeMutableBufferPointer<Float>
  /// Whether frames are decoded where they are made, to see what arrives.
  package let measuresFidelity: Bool
  /// Bytes that this rank has sent to come to it.
  package let bytesSent: Int

  package init(
    choice: PolicyChoice, note: UnsafeMutableBufferPointer<Float>, measuresFidelity: Bool, bytesSent: Int
  ) {
    self.choice = choice
    self.note = note
    self.measuresFidelity = measuresFidelity
    self.bytesSent = bytesSent
  }
}

/// What a transfer came to, over all ranks.
package struct TransferOutcome {
  package var bytes = 0.0
  package var fidelity = Fidelity()
}
