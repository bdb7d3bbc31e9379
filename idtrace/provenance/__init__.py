"""Provenance: from verified events to where a thing was, in what, in whose hands, and what was measured there. Pure."""
