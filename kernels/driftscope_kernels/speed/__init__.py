"""How fast the kernels are, paired against torch (and vLLM) in one process, as ratios."""
