"""What would be large, made small: scores by fewer bits or edges, circuits as bits, prompts in
blocks."""
