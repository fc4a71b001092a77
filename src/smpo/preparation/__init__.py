"""The stages that prepare the training data: raw pairs -> checked pairs -> scores -> labels -> cached latents."""
