"""Helpers behind the fixtures of tests/conftest.py: one servers-only embedded stack for a whole pytest run."""
