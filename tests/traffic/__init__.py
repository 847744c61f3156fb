"""Requests that never stop: a load client in a process of its own, and how a test looks at it.

Apart from the tests, because benchmarks use it too, and in its own process, so that a busy test
cannot make an answer late and a broken answer cannot hide in a test's own connection pool.
"""
