import ArgumentParser
import Crosspoint

/// What moves rows to their experts and back: Crosspoint, or the plain baseline that it is compared with.
///
/// One batch at a time, in the order `dispatch → combine → combineBackward → dispatchBackward`, the last two only in
/// training. All four are collective. Experts write where ``outputs()`` and ``rowGradients()`` say.
protocol ExpertTransport: AnyObject {
  /// This rank's experts.
  var localExperts: Range<Int> { get }
  /// `[rows × width]`: what the last dispatch brought, grouped by local expert; until ``forget()`` or the next dispatch.
  var rows: Matrix { get }
  /// `[local experts]`: rows of each.
  var rowsPerExpert: [Int] { get }
  /// `[T × K]`: complete after `dispatchBackward`.
  var topkWeightGradients: [Float] { get }

  /// - Parameters:
  ///   - labels: what tokens are known by; `nil`: by nothing.
  ///   - work: what this rank does meanwhile, or after, where the transport cannot do both at once.
  func dispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing, labels: [Int32]?, meanwhile work: LocalWork
  ) throws(CrosspointError)
  /// `[rows × width]`, a view.
  func outputs() throws(CrosspointError) -> TokenBatch
  func combine() throws(CrosspointError) -> TokenBatch
  /// - Parameter work: see ``dispatch(_:_:labels:meanwhile:)``.
  func combineBackward(_ dy: borrowing TokenBatch, meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch
  /// `[rows × width]`, a view.
  func rowGradients() throws(CrosspointError) -> TokenBatch
  /// - Parameter work: see ``dispatch(_:_:labels:meanwhile:)``.
  func dispatchBackward(meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch
  /// Throws what went wrong so far on any rank, in any layer, and has not been thrown. Collective.
  func settle() throws(CrosspointError)
  /// Gives back what is kept of the last dispatch.
  func forget()

  /// Adds what moved since the last call.
  func takeTraffic(into traffic: inout Traffic)
  /// Calls `body` with the seconds of each part since the last call.
  func takeSeconds(_ body: (StepClock.Part, Double) -> Void)
}

/// Which transport a model is trained over.
package enum ExpertTransportKind: String, Sendable, CaseIterable, ExpressibleByArgument {
  /// An ``ExpertExchange``.
  case crosspoint
  /// pack + MPI_Alltoallv + unpack, without checks: the same bits as fp32 through Crosspoint.
  case plain

  /// - Throws: `invalidArgument` naming the first option that it cannot do.
  func validate(_ options: ExchangeOptions) throws(CrosspointError) {
    guard self == .plain else { return }
    for (asked, own) in zip(options.pairs, ExchangeOptions(seed: options.seed).pairs) where asked != own {
      throw CrosspointError(
        .invalidArgument, operation: "options", argument: "transport",
        "plain sends fp32 rows, one for each expert: it cannot do \(asked.key) \(asked.value), only \(own.value)")
    }
  }
}
