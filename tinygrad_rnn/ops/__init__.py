"""The table of primitives: each a forward kernel with its derivatives above it."""
