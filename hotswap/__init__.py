"""HotSwap: durable, isolated, reversible plugin rollouts. The thinking lives here; workflows/ carry it out."""

__version__ = "0.1.0"
