"""What builds the site, besides Sphinx: mathematics, docstrings, what the pages show of the code, and a last look."""
