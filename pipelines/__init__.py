"""When each step runs: the pipeline, its compiler, the local runner and the command line."""
