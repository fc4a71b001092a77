"""One small pure function per equation (Eq. 8-16). Tensors in, tensors out; no device, file, config or logger."""
