"""Audit of a pair set: agreement and contradictions of labels, repeated images, pairs that dominate the gradient."""
