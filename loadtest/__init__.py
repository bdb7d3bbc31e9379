"""Load, measurements and side-by-side comparisons; nothing here is needed to run a node."""
