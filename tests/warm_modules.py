"""Loads what a node needs, kernels included, for processes that are forked from here."""

import sys

import torch._dynamo

import learners.deep.finetune
import streams.node
import streams.trainer
from streams.learning import load_everything

assert streams.node.run_node
assert streams.trainer.run_trainer
assert learners.deep.finetune.fine_tune
assert torch._dynamo  # what the first optimizer would import, for seconds
if "_pytest" not in sys.modules:  # not when pytest only looks for doctests
    load_everything()
