"""A snapshot inside an engine, in kernels and without torch."""
