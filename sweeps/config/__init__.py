"""What a run is asked to do, read and checked."""
