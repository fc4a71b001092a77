"""Adversarial tests: recipes, data files and damaged artefacts, each with its right outcome written down before it runs."""
