"""What is in a pair set: labels that disagree or contradict, images that repeat, pairs that carry the signal."""
