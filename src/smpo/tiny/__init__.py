"""The embedded tiny world: scenes and prompts that pixels can verify, small models, and what trained them."""
