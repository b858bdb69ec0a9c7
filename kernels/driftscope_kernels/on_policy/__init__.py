"""A trainer and an engine that compute the same bits: the switches for frameworks."""
