"""The nightly job: what to check, what earlier nights found, what has changed. Free of torch."""
