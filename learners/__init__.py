"""The online learner: pure Python, numpy, numba and River; no Kafka, no web, no clock."""
