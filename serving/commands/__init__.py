"""The commands of `everlearn`, one module per job; heavy imports stay inside the functions."""
