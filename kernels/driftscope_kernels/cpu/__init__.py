"""Fast implementations for CPUs of the ops whose bits the contracts fix."""
