"""Kernels of others, and planted faults, behind the one signature that the checker calls."""
