"""Tests of idtrace/drugcode."""
