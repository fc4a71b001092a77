"""The scripts that made the models of `smpo.tiny`."""
