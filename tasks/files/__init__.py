"""Tasks in files of a user: prompts, a JSON object a line; running text."""
