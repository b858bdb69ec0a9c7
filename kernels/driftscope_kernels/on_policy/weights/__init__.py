"""The proof that an engine computes with the trainer's weights: a digest per tensor of both sides.

Nothing here imports torch by itself: who only reads what was pushed takes `recorded`.
"""
