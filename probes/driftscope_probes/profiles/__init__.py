"""Where a step's differences lie: along responses, from their ends, by position, turn and worker."""
