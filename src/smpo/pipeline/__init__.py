"""A recipe, and the stages that it runs: from names to objects."""
