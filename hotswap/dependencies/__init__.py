"""What a plugin needs of other plugins and of packages, and whether an environment has it. Pure."""
