"""What a user meets: the API, the metrics, the command line."""
