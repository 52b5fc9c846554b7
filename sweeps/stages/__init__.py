"""What a run does, one stage a file; all of them stand in `registry`."""
