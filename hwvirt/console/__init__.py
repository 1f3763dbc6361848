"""Live status of a run or of a running daemon."""
