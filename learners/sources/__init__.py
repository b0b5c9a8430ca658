"""Where candidates come from: each module scores items for a query and keeps one contract."""
