"""Examples that are run from a checkout."""
