"""The workflows' hands: every effect on the world, each safe to run twice. Adapters are injected by worker.py."""
