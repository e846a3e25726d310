"""Heedful and what a user would pick instead, on the same models, texts and lengths, in turn on one machine."""
