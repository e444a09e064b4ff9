"""Durable rollouts: what is decided and waited for. All I/O is in activities/."""
