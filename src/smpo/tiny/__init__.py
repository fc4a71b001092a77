"""The embedded tiny world: scenes, prompts that pixels can verify, and models that examples/tiny_world made."""
