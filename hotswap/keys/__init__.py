"""Secrets of tenants: sealed under data keys of their own, which a key provider wraps."""
