import CrosspointCore

extension Fabric {
  /// Replaces `values` by its sum over all ranks, in place. Collective.
  ///
  /// Every element is added in rank order 0, 1, … R−1 on one rank (or on all, when the array is small), so the result has
  /// the same bits on every rank and in every run, on any fabric. Cost: each rank sends and receives `2 (R−1)/R` times the
  /// array (reduce-scatter, then allgather; Rabenseifner 2004). The fabric keeps memory of the largest array's size.
  /// - Throws: also `corruptFrame`, agreed on by all ranks, where a part of a large array comes damaged.
  public func allreduce(_ values: UnsafeMutableBufferPointer<Float>, operation: StaticString) throws(CrosspointError) {
    try reduce(UnsafeMutableRawBufferPointer(values), stride: 4, operation: operation, add: addFloats)
  }

  /// Replaces `values` by its sum over all ranks; as for `Float`.
  public func allreduce(_ values: UnsafeMutableBufferPointer<Double>, operation: StaticString) throws(CrosspointError) {
    try reduce(UnsafeMutableRawBufferPointer(values), stride: 8, operation: operation, add: addDoubles)
  }

  private typealias Add = (_ total: UnsafeMutableRawBufferPointer, _ addend: UnsafeRawBufferPointer) -> Void

  private func reduce(
    _ values: UnsafeMutableRawBufferPointer, stride: Int, operation: StaticString, add: Add
  ) throws(CrosspointError) {
    guard rankCount > 1, values.count > 0 else { return }
    if values.count <= smallBytes {
      try reduceAtOnce(values, operation: operation, add: add)
    } else {
      try reduceByChunks(values, stride: stride, operation: operation, add: add)
    }
  }

  /// Everybody gets everything and adds it: one exchange instead of two.
  private func reduceAtOnce(
    _ values: UnsafeMutableRawBufferPointer, operation: StaticString, add: Add
  ) throws(CrosspointError) {
    try gather(UnsafeRawBufferPointer(values), operation: operation) { source, block in
      if source == 0 { values.copyMemory(from: block) } else { add(values, block) }
    }
  }

  /// Rank p adds chunk p of everybody, then hands the total to everybody.
  private func reduceByChunks(
    _ values: UnsafeMutableRawBufferPointer, stride: Int, operation: StaticString, add: Add
  ) throws(CrosspointError) {
    let (elements, memory) = (values.count / stride, collectiveMemory)
    func chunk(_ rank: Int) -> UnsafeMutableRawBufferPointer {
      let range = elements * rank / rankCount * stride..<elements * (rank + 1) / rankCount * stride
      return UnsafeMutableRawBufferPointer(rebasing: values[range])
    }
    let parts = try memory.take(bytes: rankCount * chunk(rank).count, operation: operation)
    memory.receive(into: parts, parts: rankCount)
    memory.send.removeAll(keepingCapacity: true)
    for rank in 0..<rankCount { memory.send.append(UnsafeRawBufferPointer(chunk(rank))) }
    let damage = try exchangeChecked(operation: operation)
    let total = memory.receive[0]
    for part in memory.receive.dropFirst() where damage == nil { add(total, UnsafeRawBufferPointer(part)) }
    memory.send.refill(with: UnsafeRawBufferPointer(total), count: rankCount)
    memory.receive.removeAll(keepingCapacity: true)
    for rank in 0..<rankCount { memory.receive.append(chunk(rank)) }
    let later = try exchangeChecked(operation: operation)
    try settle(damage ?? later, operation: operation)
  }
}

/// Up to this size one exchange of the whole array costs less than two of its parts.
private let smallBytes = 2048

// One function per type, so that each loop is compiled for its type.
private func addFloats(_ total: UnsafeMutableRawBufferPointer, _ addend: UnsafeRawBufferPointer) {
  addElements(of: Float.self, total, addend)
}

private func addDoubles(_ total: UnsafeMutableRawBufferPointer, _ addend: UnsafeRawBufferPointer) {
  addElements(of: Double.self, total, addend)
}

@inline(__always)
private func addElements<Scalar: AdditiveArithmetic & BitwiseCopyable>(
  of type: Scalar.Type, _ total: UnsafeMutableRawBufferPointer, _ addend: UnsafeRawBufferPointer
) {
  let total = total.assumingMemoryBound(to: type)
  let addend = addend.assumingMemoryBound(to: type)
  for index in 0..<total.count { total[index] += addend[index] }
}
