"""What the thinking needs from the world, as interfaces. hotswap.adapters implements them, tests hold twins to one contract."""
