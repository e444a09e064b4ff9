"""One module a revision, oldest first. Frozen once released."""
