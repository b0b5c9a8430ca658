"""Loads what a node needs, kernels included, for processes that are forked from here."""

import sys

import streams.node
from streams.learning import load_everything

assert streams.node.run_node
if "_pytest" not in sys.modules:  # not when pytest only looks for doctests
    load_everything()
