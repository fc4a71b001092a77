"""One stage per module: raw pairs -> checked pairs -> scores -> labels -> cached latents."""
