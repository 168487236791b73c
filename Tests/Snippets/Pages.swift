/// What runs a page's snippets, by the page's name; `readme` and `mpi` start MPI.
let pages: [String: @Sendable () throws -> Void] = [
  "readme": readme,
  "mpi": mpi,
  "using": using,
  "routing": routing,
  "stages": stages,
  "troubleshooting": troubleshooting,
  "extending": extending,
]
