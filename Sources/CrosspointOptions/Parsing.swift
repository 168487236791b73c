import ArgumentParser
import CrosspointCore

/// Reads an argument by an initialiser that says what is wrong with a text.
package func reading<Value>(
  _ read: @escaping @Sendable (String) throws(CrosspointError) -> Value
) -> @Sendable (String) throws -> Value {
  { text in
    do throws(CrosspointError) { return try read(text) } catch { throw ValidationError(error.message) }
  }
}
