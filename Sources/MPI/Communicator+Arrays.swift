/// The collectives over arrays and single values, for where convenience matters more than an allocation.
extension Communicator {
  /// Copies the root's elements over everybody's array of the same count. Collective.
  public func broadcast<Element: Datatype>(_ elements: inout [Element], from root: Int) throws(MPIError) {
    try elements.withUnsafeMutableBufferPointer { buffer throws(MPIError) in try broadcast(buffer, from: root) }
  }

  /// Replaces each element by its reduction over all ranks. Collective.
  public func allreduce<Element: Datatype>(_ elements: inout [Element], _ reduction: Reduction) throws(MPIError) {
    try elements.withUnsafeMutableBufferPointer { buffer throws(MPIError) in try allreduce(buffer, reduction) }
  }

  /// The reduction of everybody's value. Collective.
  public func allreduce<Element: Datatype>(_ value: Element, _ reduction: Reduction) throws(MPIError) -> Element {
    var values = [value]
    try allreduce(&values, reduction)
    return values[0]
  }

  /// Everybody's elements, in rank order; the same count on every rank. Collective.
  public func allgather<Element: Datatype>(_ mine: [Element]) throws(MPIError) -> [Element] {
    guard let first = mine.first else { return [] }
    var all = Array(repeating: first, count: size * mine.count)
    try mine.withUnsafeBufferPointer { mine throws(MPIError) in
      try all.withUnsafeMutableBufferPointer { all throws(MPIError) in try allgather(mine, into: all) }
    }
    return all
  }

  /// Everybody's value, in rank order. Collective.
  public func allgather<Element: Datatype>(_ value: Element) throws(MPIError) -> [Element] {
    try allgather([value])
  }

  /// Sends the p-th of `size` equal parts to rank p; returns what came, in rank order. Collective.
  public func alltoall<Element: Datatype>(_ send: [Element]) throws(MPIError) -> [Element] {
    var receive = send
    try send.withUnsafeBufferPointer { send throws(MPIError) in
      try receive.withUnsafeMutableBufferPointer { receive throws(MPIError) in try alltoall(send, into: receive) }
    }
    return receive
  }
}
