"""The deep half: a sequential model that is fine-tuned again and again, and its snapshots."""
