"""The contract of registry/storage.py as a program that every store runs, and the truth that each has to tell."""
