"""The fault injector: kills parts of a live system at random points while deployments run, and checks what must hold."""
