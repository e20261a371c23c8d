"""The job of the benchmark on other engines: each program runs in an environment of its own, without onhand."""
