"""What lives in an actor: a worker, and what it holds while it lives."""
