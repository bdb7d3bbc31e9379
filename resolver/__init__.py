"""The recursive node: walks the tree, verifies every link, caches, answers."""
