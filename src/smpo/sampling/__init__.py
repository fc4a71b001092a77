"""Image generation: one PNG for each prompt and seed, and a table that lists them.

The noise of an image depends on the seed, the index of its prompt and its own index. It is drawn on the CPU. How images
are grouped into batches depends on their number alone. So an interruption, or another number of processes, does not
change an image; another batch size or device changes it by rounding only.
"""
