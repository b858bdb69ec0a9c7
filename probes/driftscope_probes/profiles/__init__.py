"""Where a step differs: along responses, from their ends, by position, turn and worker."""
