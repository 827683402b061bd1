"""Judges of answers: what they are asked, what they said, what it cost, and how they are biased."""
