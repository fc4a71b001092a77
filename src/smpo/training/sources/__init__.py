"""Where the batches of a training come from."""
