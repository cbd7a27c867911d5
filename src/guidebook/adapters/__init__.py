"""Adapters: small sets of trained weights inside a base that does not move."""
