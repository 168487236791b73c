/// What runs a page's snippets, by the page's name; `readme`, `mpi` and `groups` start MPI.
let pages: [String: @Sendable () throws -> Void] = [
  "readme": readme,
  "mpi": mpi,
  "groups": groups,
  "using": using,
  "routing": routing,
  "stages": stages,
  "troubleshooting": troubleshooting,
  "extending": extending,
]
