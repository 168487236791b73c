/// Another rank of this node, with which this one shares memory.
struct Neighbour {
  /// What it leaves for this rank in even and odd exchanges, and what this rank leaves for it.
  private let inboxes: (Mailbox, Mailbox)
  private let outboxes: (Mailbox, Mailbox)

  /// - Parameters:
  ///   - node: ranks of the node; `index` and `own` of them are the other and this one.
  ///   - control: the first pages of its file; `ownControl` of this rank's.
  init(
    _ index: Int, control: UnsafeMutableRawPointer, own: Int, ownControl: UnsafeMutableRawPointer, node: Int
  ) {
    func boxes(of sender: Int, in control: UnsafeMutableRawPointer) -> (Mailbox, Mailbox) {
      (
        Mailbox(of: sender, exchange: 0, node: node, in: control),
        Mailbox(of: sender, exchange: 1, node: node, in: control)
      )
    }
    inboxes = boxes(of: index, in: ownControl)
    outboxes = boxes(of: own, in: control)
  }

  func inbox(_ exchange: Int) -> Mailbox { exchange.isMultiple(of: 2) ? inboxes.0 : inboxes.1 }
  func outbox(_ exchange: Int) -> Mailbox { exchange.isMultiple(of: 2) ? outboxes.0 : outboxes.1 }
}
