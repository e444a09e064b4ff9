"""Turns a deployment's configuration into a Plan: pure functions, one file a strategy. Entry: hotswap.strategies.registry."""
