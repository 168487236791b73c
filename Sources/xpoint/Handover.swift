import Synchronization

/// Passes one move-only value from one thread to another.
final class Handover<Value: ~Copyable & Sendable>: Sendable {
  private let value: Mutex<Value?>

  init() { value = Mutex(nil) }

  init(_ value: consuming sending Value) { self.value = Mutex(value) }

  func put(_ new: consuming sending Value) {
    var new: Value? = consume new
    value.withLock { swap(&$0, &new) }
  }

  func take() -> sending Value? {
    value.withLock { $0.take() }
  }
}
