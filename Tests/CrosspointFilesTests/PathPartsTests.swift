import Testing

@testable import CrosspointFiles

@Test(arguments: [
  ("0", ".", "0"), ("a.json", ".", "a.json"), ("/", "/", ""), ("", ".", ""), ("/x", "/", "x"), ("x/y", "x", "y"),
  ("x/y/", "x", "y"), ("../z", "..", "z"), ("/a/b/c", "/a/b", "c"),
])
func `a path is its folder and its last name`(path: String, folder: String, name: String) {
  let parts = PathParts(path)
  #expect(parts.folder == folder && parts.name == name)
}
