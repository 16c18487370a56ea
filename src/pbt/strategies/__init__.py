"""Strategies beyond one exploit and one explore: joint decisions, memory, surrogates. One module each."""
