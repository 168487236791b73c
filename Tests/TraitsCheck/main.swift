// What the package traits bring: `swift run --traits Metrics,Logging TraitsCheck` prints "ok", under mpirun too.

#if Metrics && Logging
  import MPI

  if MPIEnvironment.launchedRank == nil {
    try checkLogs()
    try checkMetrics()
  } else {
    try checkLogOfUnsharedMemory()
  }
  print("ok")
#else
  print("built without the traits Metrics and Logging")
#endif
