"""What the original packages gave, committed with the script that asked them."""
