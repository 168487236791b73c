/// What a snippet did not do.
struct SnippetFailure: Error, CustomStringConvertible {
  let description: String
}

func expect(_ holds: Bool, _ claim: String) throws {
  if !holds { throw SnippetFailure(description: "not so: \(claim)") }
}
