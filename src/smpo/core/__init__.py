"""What every room stands on: errors, checks, registries, records, artefacts, processes, randomness."""
