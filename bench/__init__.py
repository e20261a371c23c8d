"""Benchmarks, and the real servers that benchmarks and tests are run against."""
