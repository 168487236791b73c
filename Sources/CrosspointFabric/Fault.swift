/// Something that goes wrong in a ``SimulatedCluster``, to prove that the ranks fail together.
///
/// Exchanges are counted per rank from 0; a collective is made of one exchange (`allreduce` of a large array: two).
public struct Fault: Sendable, Hashable {
  enum Kind: Sendable, Hashable {
    case slow(delay: Duration)
    case silent
    case dead
    case flippedByte(receiver: Int, offset: Int)
  }

  let rank: Int
  let exchange: Int
  let kind: Kind

  /// The rank waits for `delay` before each of its exchanges.
  public static func slow(_ rank: Int, _ delay: Duration) -> Fault {
    Fault(rank: rank, exchange: 0, kind: .slow(delay: delay))
  }

  /// The rank stops answering from its n-th exchange on, but lives until the others have ended.
  public static func silent(_ rank: Int, fromExchange exchange: Int) -> Fault {
    Fault(rank: rank, exchange: exchange, kind: .silent)
  }

  /// The rank is lost at its n-th exchange, as if it had been killed.
  public static func dead(_ rank: Int, atExchange exchange: Int) -> Fault {
    Fault(rank: rank, exchange: exchange, kind: .dead)
  }

  /// All bits of one byte of the block that `sender` sends to `receiver` in the n-th exchange are inverted in transit.
  ///
  /// It traps if that block has no such byte: a fault that hits nothing would prove nothing.
  public static func flippedByte(from sender: Int, to receiver: Int, exchange: Int, offset: Int) -> Fault {
    Fault(rank: sender, exchange: exchange, kind: .flippedByte(receiver: receiver, offset: offset))
  }
}
