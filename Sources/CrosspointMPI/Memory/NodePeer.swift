/// Another rank of this node, with which this one shares memory.
struct NodePeer {
  /// What it leaves for this rank in even and odd exchanges, and what this rank leaves for it.
  private let incoming: (Mailbox, Mailbox)
  private let outgoing: (Mailbox, Mailbox)

  /// - Parameters:
  ///   - node: ranks of the node; `index` and `own` of them are the other and this one.
  ///   - control: the first pages of its file; `ownControl` of this rank's.
  init(
    _ index: Int, control: UnsafeMutableRawPointer, own: Int, ownControl: UnsafeMutableRawPointer, node: Int
  ) {
    func mailboxes(of sender: Int, in control: UnsafeMutableRawPointer) -> (Mailbox, Mailbox) {
      (
        Mailbox(of: sender, exchange: 0, node: node, in: control),
        Mailbox(of: sender, exchange: 1, node: node, in: control)
      )
    }
    incoming = mailboxes(of: index, in: ownControl)
    outgoing = mailboxes(of: own, in: control)
  }

  /// The mailbox of an exchange from it to this rank.
  func received(_ exchange: Int) -> Mailbox { exchange.isMultiple(of: 2) ? incoming.0 : incoming.1 }
  /// That from this rank to it.
  func sent(_ exchange: Int) -> Mailbox { exchange.isMultiple(of: 2) ? outgoing.0 : outgoing.1 }
}
