"""Images from pipelines and prompts: one PNG per prompt and seed, and a table that says which is which.

The random numbers of an image depend on the seed, its prompt's index and its own index, and are drawn on the CPU;
the images are made in batches that depend on their number alone. So neither the device, nor an interruption, nor the
number of processes changes what an image shows, and the batch size does so by rounding only.
"""
