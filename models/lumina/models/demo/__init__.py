"""The demo model: a tiny neural template-filler, its corpus and its file."""
