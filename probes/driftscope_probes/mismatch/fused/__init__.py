"""The one pass over the tokens that every number of a comparison comes from, compiled by numba."""
