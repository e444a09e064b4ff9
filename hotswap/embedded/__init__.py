"""The local stack: real servers from wheels or PATH and our own processes, on loopback, under one data directory.

Start at stack.py (EmbeddedStack) or run.py (`hotswap up`). Never for production.
"""
