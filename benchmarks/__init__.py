"""Side-by-side measurements against named peers; README.md says how to run them and what they showed."""
