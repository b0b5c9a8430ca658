"""The deep half: a sequential model that is fine-tuned, proved and promoted while it serves."""
