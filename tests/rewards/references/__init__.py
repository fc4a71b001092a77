"""The scorers' networks once more, written from their published descriptions in plain torch, and random weights."""
