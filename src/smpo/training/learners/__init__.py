"""What a training step computes of a batch."""
