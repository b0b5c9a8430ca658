"""What is kept: ids, histories, sessions, the books of what was learnt, and how rows grow."""
