"""Benchmarks: what the system can do on this machine, one JSON row per result.

`everlearn bench` runs them from the source checkout; `results/` keeps the rows that the documents
quote.
"""
