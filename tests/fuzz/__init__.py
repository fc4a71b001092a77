"""Adversarial tests: recipes, data files, damaged artefacts; each right outcome is written down before it runs."""
