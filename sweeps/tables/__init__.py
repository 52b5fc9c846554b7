"""What is told of a run: rows from what is committed."""
