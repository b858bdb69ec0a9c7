"""Prompts for a first look: short, varied in subject and form, written for this project."""

from __future__ import annotations

DEMO_PROMPTS: tuple[str, ...] = (
    "Explain in three sentences why the sky is blue.",
    "A train leaves at 9:40 and arrives at 13:05. How long is the journey?",
    "Write a Python function that returns the n-th Fibonacci number.",
    "List five things to check before a long bicycle tour.",
    "What is the capital of France, and which river runs through it?",
    "Tell a short story about a lighthouse keeper who loses a key.",
    "Translate into French: The library opens at eight in the morning.",
    "If 3x + 7 = 25, what is x? Show each step.",
    "Summarise what a compiler does for someone who never programmed.",
    "Give two arguments for and two against working from home.",
    "Write a haiku about the first snow.",
    "What happens to water when it freezes, and why does ice float?",
    "Correct the grammar: He don't knows where is the station.",
    "Name three sorting algorithms and the cost of each.",
    "How would you explain a black hole to a ten-year-old?",
    "Write a polite e-mail that asks to move a meeting to Friday.",
    "What is the sum of the first twenty odd numbers?",
    "Describe the taste of a lemon without using the word sour.",
    "Which planets of the solar system have rings?",
    "Write a SQL query that counts the orders of each customer.",
    "Why do cats purr? Give the leading explanations.",
    "Continue the series and give the rule: 2, 6, 12, 20, 30.",
    "What should I cook with rice, eggs and spinach?",
    "Explain the difference between weather and climate.",
    "Prove that the square root of two is irrational.",
    "Write a product description for a wooden desk lamp.",
    "What are the three branches of government, and what do they do?",
    "A shop gives 15 % off a coat of 80 euros. What does it cost?",
    "How does a vaccine train the immune system?",
    "Turn this into one sentence: It rained. We stayed. We played cards.",
    "Give a regular expression that matches a date like 2024-05-31.",
    "What would change on Earth if the Moon disappeared?",
)


def demo_prompts(count: int) -> list[str]:
    """The first `count`; beyond the list they repeat, and differ by their request's seed."""
    return [DEMO_PROMPTS[index % len(DEMO_PROMPTS)] for index in range(count)]
