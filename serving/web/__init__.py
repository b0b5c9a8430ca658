"""HTTP: the routes, what they take and answer, their limits, their description, the server."""
