"""Frozen models, ids, the lifecycle table and one error tree. Pure: pydantic and nothing else."""
