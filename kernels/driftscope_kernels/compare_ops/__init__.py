"""One op, equal inputs, two implementations: how they differ, and for what reason."""
