"""The command line: the only part of guidebook that writes to the terminal."""
