import CrosspointCore

/// Work of this rank alone, to be done while bytes are under way: each call does one slice of it and says whether any is
/// left.
///
/// ```swift
/// var rows = stride(from: 0, to: tokens.rows, by: 128).makeIterator()
/// let handle = try exchange.dispatch(tokens, routing) {
///   guard let start = rows.next() else { return false }
///   shared.forward(tokens, rows: start..<min(start + 128, tokens.rows))
///   return true
/// }
/// ```
///
/// Every rank passes work of its own, or none. A transfer runs slices while it waits for what the others send, where it moves
/// bytes between two slices, and what is left when all has arrived. When it returns, everything is done: each slice
/// once and in order, so that the result does not depend on what came when.
///
/// - A slice is long against a look for messages (microseconds), so that looking costs nothing, and short against the
///   fabric's deadline: other ranks may wait for bytes that move only between slices. A tenth of a millisecond to a few
///   milliseconds is right. All of it together is, to a rank that waits, work between two exchanges: take a longer deadline.
/// - A slice may read what the transfer reads. It must not use the exchange or its fabric.
/// - An error that it throws ends the work, and is thrown by the transfer on every rank, marked with this one; the exchange
///   can be used again. Where the transfer itself fails, the rest of the work is not done.
///
/// What slices took is in ``LayerStatistics/Seconds/meanwhile``.
public typealias LocalWork = () throws(CrosspointError) -> Bool
